//! Reads and writes memory through pointers.

use super::layout::Memory;
use super::machine::{Machine, Pointee, Pointer, Result, Root};
use super::shared::Lane;
use super::value::{Mask, Value};
use naga::{AddressSpace, AtomicFunction, Expression, Handle, TypeInner};

impl<'a> Machine<'a> {
    pub(crate) fn pointee(&self, pointer: Handle<Expression>) -> Result<Pointee> {
        let types = &self.module.types;
        let memory = |space| match space {
            AddressSpace::Storage { .. } | AddressSpace::Immediate => Memory::Buffer,
            _ => Memory::Cells,
        };
        match *self.frame().info[pointer].ty.inner_with(types) {
            TypeInner::Pointer { base, space } => Ok(Pointee {
                scalars: self.layouts.of(base, memory(space)).scalars.clone(),
                is_atomic: matches!(types[base].inner, TypeInner::Atomic(_)),
            }),
            TypeInner::ValuePointer { scalar, space, .. } if memory(space) == Memory::Buffer && scalar.width != 4 => {
                Err("scalars of other than four bytes in a buffer are not known here".into())
            }
            TypeInner::ValuePointer { size, .. } => {
                let scalars = (0..size.map_or(1, |size| size as u32)).collect();
                Ok(Pointee { scalars, is_atomic: false })
            }
            _ => Err("a value where a pointer is needed".into()),
        }
    }

    pub(crate) fn load(&mut self, pointer: &Pointer, pointee: &Pointee, mask: &Mask) -> Result<Value> {
        let scalars = &pointee.scalars[..];
        let Some(first) = mask.first() else { return Ok(Value::zero(scalars.len(), self.lanes)) };
        match pointer.root {
            Root::Local(depth, variable) => {
                let cells = &self.frames[depth].locals[variable];
                let mut data = Vec::with_capacity(scalars.len() * self.lanes);
                for &scalar in scalars {
                    match &pointer.offset.data[..] {
                        &[offset] => {
                            let at = (offset + scalar) as usize * self.lanes;
                            data.extend_from_slice(cells.get(at..at + self.lanes).ok_or("beyond a variable's end")?);
                        }
                        offsets => {
                            for (lane, offset) in offsets.iter().enumerate() {
                                let at = offset.wrapping_add(scalar) as usize * self.lanes + lane;
                                let bits = if mask.has(lane) { cells.get(at) } else { Some(&0) };
                                data.push(*bits.ok_or("beyond a variable's end")?);
                            }
                        }
                    }
                }
                Ok(Value { data, width: self.lanes })
            }
            Root::Shared(index) => {
                self.count_access(index, false, &pointer.offset, scalars, mask);
                let at = |offset: u32, scalar: u32| offset.wrapping_add(scalar);
                if pointer.offset.is_uniform() {
                    let offset = pointer.offset.data[0];
                    let mut who = self.who(index, first);
                    if mask.count() > 1 {
                        who.lane = Lane::Several;
                    }
                    let shared = &mut self.shared[index];
                    let read = scalars.iter().map(|&scalar| shared.read(at(offset, scalar), who, pointee.is_atomic));
                    let data = read.collect::<std::result::Result<Vec<_>, String>>()?;
                    return Ok(Value::uniform(data));
                }
                let mut value = Value::zero(scalars.len(), self.lanes);
                for (component, &scalar) in scalars.iter().enumerate() {
                    for lane in mask.iter() {
                        let who = self.who(index, lane);
                        let at = at(pointer.offset.data[lane], scalar);
                        let bits = self.shared[index].read(at, who, pointee.is_atomic)?;
                        value.data[component * self.lanes + lane] = bits;
                    }
                }
                Ok(value)
            }
        }
    }

    pub(crate) fn store(&mut self, pointer: &Pointer, pointee: &Pointee, value: &Value, mask: &Mask) -> Result<()> {
        if let Root::Shared(index) = pointer.root {
            self.count_access(index, true, &pointer.offset, &pointee.scalars, mask);
        }
        for (component, &scalar) in pointee.scalars.iter().enumerate() {
            for lane in mask.iter() {
                let (offset, bits) = (pointer.offset.get(0, lane).wrapping_add(scalar), value.get(component, lane));
                match pointer.root {
                    Root::Local(depth, variable) => {
                        let at = offset as usize * self.lanes + lane;
                        let cells = &mut self.frames[depth].locals[variable];
                        *cells.get_mut(at).ok_or("beyond a variable's end")? = bits;
                    }
                    Root::Shared(index) => {
                        let who = self.who(index, lane);
                        self.shared[index].write(offset, who, pointee.is_atomic, bits)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn atomic(
        &mut self,
        pointer: &Pointer,
        fun: &AtomicFunction,
        value: &Value,
        mask: &Mask,
    ) -> Result<Value> {
        let Root::Shared(index) = pointer.root else {
            return Err("an atomic variable of one invocation".into());
        };
        self.count_access(index, true, &pointer.offset, &[0], mask);
        let mut before = Value::zero(1, self.lanes);
        for lane in mask.iter() {
            let (at, bits, who) = (pointer.offset.get(0, lane), value.get(0, lane), self.who(index, lane));
            let after: fn(u32, u32) -> u32 = match fun {
                AtomicFunction::Add => u32::wrapping_add,
                AtomicFunction::Subtract => u32::wrapping_sub,
                AtomicFunction::And => |a, b| a & b,
                AtomicFunction::InclusiveOr => |a, b| a | b,
                AtomicFunction::ExclusiveOr => |a, b| a ^ b,
                AtomicFunction::Exchange { compare: None } => |_, b| b,
                _ => return Err("an atomic operation that is not known here".into()),
            };
            before.data[lane] = self.shared[index].update(at, who, |a| after(a, bits))?;
        }
        Ok(before)
    }
}
