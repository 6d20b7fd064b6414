//! Computes expressions.

use super::layout::Memory;
use super::machine::{Given, Machine, Pointer, Result, Root};
use super::math;
use super::value::{Mask, Value};
use naga::{ArraySize, Expression, Handle, Literal, SwizzleComponent, Type, TypeInner, VectorSize};

impl<'a> Machine<'a> {
    pub(crate) fn compute(&mut self, expression: Handle<Expression>, mask: &Mask) -> Result<Given> {
        let function = self.frame().function;
        let of = |machine: &mut Self, of: Handle<Expression>| machine.evaluate(of, mask);
        Ok(Given::Value(match &function.expressions[expression] {
            Expression::Literal(literal) => bits_of(*literal)?,
            Expression::Constant(constant) => self.constant(self.module.constants[*constant].init)?,
            Expression::ZeroValue(ty) => self.zero(*ty),
            Expression::Compose { components, .. } => {
                let parts = components.iter().map(|&part| of(self, part)).collect::<Result<Vec<_>>>()?;
                let parts = parts.iter().map(|part| part.value()).collect::<Result<Vec<_>>>()?;
                Value::concat(&parts)
            }
            Expression::Splat { size, value } => splat(of(self, *value)?.value()?, *size),
            Expression::Swizzle { size, vector, pattern } => {
                swizzle(of(self, *vector)?.value()?, &pattern[..*size as usize])
            }
            Expression::Access { base, index } => {
                let (given, index) = (of(self, *base)?, of(self, *index)?);
                return self.element(*base, &given, index.value()?, mask);
            }
            Expression::AccessIndex { base, index } => {
                let given = of(self, *base)?;
                return self.member(*base, &given, *index);
            }
            Expression::GlobalVariable(variable) => {
                let (root, memory) = self.globals[variable];
                return Ok(Given::Pointer(Pointer { root, offset: Value::uniform(vec![0]), memory }));
            }
            Expression::LocalVariable(variable) => {
                let root = Root::Local(self.frames.len() - 1, variable.index());
                return Ok(Given::Pointer(Pointer { root, offset: Value::uniform(vec![0]), memory: Memory::Cells }));
            }
            Expression::Load { pointer } => {
                let pointee = self.pointee(*pointer)?;
                let pointer = of(self, *pointer)?;
                self.load(pointer.pointer()?, &pointee, mask)?
            }
            Expression::Unary { op, expr } => math::unary(*op, of(self, *expr)?.value()?, self.scalar(*expr)),
            Expression::Binary { op, left, right } => {
                let scalar = self.scalar(*left);
                let (left, right) = (of(self, *left)?, of(self, *right)?);
                let result = math::binary(*op, left.value()?, right.value()?, scalar);
                result.ok_or_else(|| format!("{op:?} of {scalar:?} is not known here"))?
            }
            Expression::Select { condition, accept, reject } => {
                let (condition, accept, reject) = (of(self, *condition)?, of(self, *accept)?, of(self, *reject)?);
                condition.value()?.zip3(accept.value()?, reject.value()?, |c, a, r| if c != 0 { a } else { r })
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let scalar = self.scalar(*arg);
                let given = [Some(*arg), *arg1, *arg2, *arg3];
                let given = given.into_iter().flatten().map(|arg| of(self, arg)).collect::<Result<Vec<_>>>()?;
                let values = given.iter().map(|given| given.value()).collect::<Result<Vec<_>>>()?;
                let result = math::function(*fun, &values, scalar);
                result.ok_or_else(|| format!("{fun:?} of {scalar:?} is not known here"))?
            }
            Expression::As { expr, kind, convert } => {
                let (scalar, given) = (self.scalar(*expr), of(self, *expr)?);
                match convert {
                    None if scalar.width == 4 => given.value()?.clone(),
                    None => return Err(format!("{scalar:?} as other bits is not known here").into()),
                    Some(width) => math::convert(given.value()?, scalar, *kind, *width)
                        .ok_or_else(|| format!("conversions of {scalar:?} to {kind:?} are not known here"))?,
                }
            }
            Expression::CooperativeLoad { data, .. } => self.load_matrix(expression, data, mask)?,
            Expression::CooperativeMultiplyAdd { a, b, c } => {
                let ((a, left), (b, right), (c, sum)) = ((*a, of(self, *a)?), (*b, of(self, *b)?), (*c, of(self, *c)?));
                self.multiply_matrices((a, left.value()?), (b, right.value()?), (c, sum.value()?), mask)?
            }
            other => return Err(format!("{other:?} is not known here, or has no value yet").into()),
        }))
    }

    /// An expression outside of functions.
    fn constant(&self, expression: Handle<Expression>) -> Result<Value> {
        Ok(match &self.module.global_expressions[expression] {
            Expression::Literal(literal) => bits_of(*literal)?,
            Expression::Constant(constant) => self.constant(self.module.constants[*constant].init)?,
            Expression::ZeroValue(ty) => self.zero(*ty),
            Expression::Compose { components, .. } => {
                let parts = components.iter().map(|&part| self.constant(part)).collect::<Result<Vec<_>>>()?;
                Value::concat(&parts.iter().collect::<Vec<_>>())
            }
            Expression::Splat { size, value } => splat(&self.constant(*value)?, *size),
            other => return Err(format!("the constant {other:?} is not known here").into()),
        })
    }

    fn zero(&self, ty: Handle<Type>) -> Value {
        Value::uniform(vec![0; self.layouts.of(ty, Memory::Cells).scalars.len()])
    }

    /// What `base` is, or points to.
    fn inner(&self, base: Handle<Expression>) -> TypeInner {
        let types = &self.module.types;
        match self.frame().info[base].ty.inner_with(types).clone() {
            TypeInner::Pointer { base, .. } => types[base].inner.clone(),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => TypeInner::Vector { size, scalar },
            inner => inner,
        }
    }

    fn element(&self, base: Handle<Expression>, given: &Given, index: &Value, mask: &Mask) -> Result<Given> {
        let inner = self.inner(base);
        let count = match inner {
            TypeInner::Array { size: ArraySize::Constant(count), .. } => Some(count.get()),
            TypeInner::Vector { size, .. } => Some(size as u32),
            _ => None,
        };
        if let Some(count) = count
            && let Some(lane) = mask.iter().find(|&lane| index.get(0, lane) >= count)
        {
            return Err(format!("index {} of {count} in invocation {lane}", index.get(0, lane) as i32).into());
        }
        match given {
            Given::Pointer(pointer) => {
                let stride = self.layouts.stride(&inner, pointer.memory);
                let wraps = |&lane: &usize| {
                    let past = index.get(0, lane).checked_mul(stride);
                    past.and_then(|past| past.checked_add(pointer.offset.get(0, lane))).is_none()
                };
                if let Some(lane) = mask.iter().find(wraps) {
                    return Err(format!("index {} in invocation {lane}", index.get(0, lane) as i32).into());
                }
                let offset = pointer.offset.zip(index, |offset, index| offset.wrapping_add(index.wrapping_mul(stride)));
                Ok(Given::Pointer(Pointer { offset, ..*pointer }))
            }
            Given::Value(value) => {
                let stride = self.layouts.stride(&inner, Memory::Cells) as usize;
                let parts = (0..stride).map(|part| {
                    Value::by_lane(self.lanes, |lane| match mask.has(lane) {
                        true => value.get(index.get(0, lane) as usize * stride + part, lane),
                        false => 0,
                    })
                });
                Ok(Given::Value(Value::concat(&parts.collect::<Vec<_>>().iter().collect::<Vec<_>>())))
            }
        }
    }

    fn member(&self, base: Handle<Expression>, given: &Given, index: u32) -> Result<Given> {
        let inner = self.inner(base);
        match given {
            Given::Pointer(pointer) => {
                let start = self.layouts.member(&inner, index, pointer.memory);
                let offset = pointer.offset.map(|offset| offset.wrapping_add(start));
                Ok(Given::Pointer(Pointer { offset, ..*pointer }))
            }
            Given::Value(value) => {
                let start = self.layouts.member(&inner, index, Memory::Cells) as usize;
                let size = match &inner {
                    TypeInner::Struct { members, .. } => {
                        self.layouts.of(members[index as usize].ty, Memory::Cells).size as usize
                    }
                    _ => self.layouts.stride(&inner, Memory::Cells) as usize,
                };
                Ok(Given::Value(value.pick(start..start + size)))
            }
        }
    }
}

fn bits_of(literal: Literal) -> Result<Value> {
    let bits = match literal {
        Literal::F32(value) => value.to_bits(),
        Literal::F16(value) => value.to_f32().to_bits(),
        Literal::U32(value) => value,
        Literal::I32(value) => value as u32,
        Literal::Bool(value) => value.into(),
        _ => return Err(format!("{literal:?} is not known here").into()),
    };
    Ok(Value::uniform(vec![bits]))
}

fn splat(value: &Value, size: VectorSize) -> Value {
    value.pick(std::iter::repeat_n(0, size as usize))
}

fn swizzle(value: &Value, pattern: &[SwizzleComponent]) -> Value {
    value.pick(pattern.iter().map(|&component| component as usize))
}
