//! Operations of subgroups: exchanges, sums, and cooperative matrices.
//!
//! Of a matrix of n x n elements, element e is held by lane `e % lanes` of the subgroup, as its scalar `e / lanes`. A subgroup
//! is the list of its invocations.

use super::layout::Memory;
use super::machine::{Machine, Pointer, Result, Root};
use super::math;
use super::shared::{Lane, Who};
use super::value::{Mask, Value};
use naga::{
    BinaryOperator, CollectiveOperation, CooperativeData, Expression, GatherMode, Handle, MathFunction, Scalar,
    ScalarKind, SubgroupOperation, TypeInner,
};
use std::rc::Rc;

/// A matrix as an expression, and its scalars.
type Matrix<'v> = (Handle<Expression>, &'v Value);

/// The invocations of a subgroup, and where the elements of its matrix lie in shared memory, row by row.
type Placed = (Rc<[usize]>, Vec<u32>);

impl<'a> Machine<'a> {
    /// The subgroups that are active.
    fn active(&self, mask: &Mask) -> Result<Vec<Rc<[usize]>>> {
        let mut active = Vec::new();
        for lanes in &self.subgroups {
            match lanes.iter().filter(|&&lane| mask.has(lane)).count() {
                0 => {}
                count if count == lanes.len() => active.push(lanes.clone()),
                count => {
                    let of = lanes.len();
                    return Err(format!("an operation of a subgroup in {count} of its {of} invocations").into());
                }
            }
        }
        Ok(active)
    }

    pub(crate) fn gather(&mut self, mode: &GatherMode, value: &Value, mask: &Mask) -> Result<Value> {
        let index = match *mode {
            GatherMode::BroadcastFirst => Value::uniform(vec![0]),
            GatherMode::Broadcast(index)
            | GatherMode::Shuffle(index)
            | GatherMode::ShuffleXor(index)
            | GatherMode::ShuffleDown(index)
            | GatherMode::ShuffleUp(index) => self.evaluate(index, mask)?.value()?.clone(),
            _ => return Err(format!("{mode:?} is not known here").into()),
        };
        let mut gathered = Value::zero(value.components(), self.lanes);
        for lanes in self.active(mask)? {
            for (within, &lane) in lanes.iter().enumerate() {
                let (within, index) = (within as u32, index.get(0, lane));
                let source = match mode {
                    GatherMode::ShuffleXor(_) => within ^ index,
                    GatherMode::ShuffleDown(_) => within.wrapping_add(index),
                    GatherMode::ShuffleUp(_) => within.wrapping_sub(index),
                    _ => index,
                };
                let from = lanes.get(source as usize);
                let from =
                    from.ok_or_else(|| format!("a shuffle from lane {source} of a subgroup of {}", lanes.len()))?;
                for component in 0..value.components() {
                    gathered.data[component * self.lanes + lane] = value.get(component, *from);
                }
            }
        }
        Ok(gathered)
    }

    pub(crate) fn collect(
        &mut self,
        op: SubgroupOperation,
        how: CollectiveOperation,
        value: &Value,
        of: Scalar,
        mask: &Mask,
    ) -> Result<Value> {
        if how != CollectiveOperation::Reduce {
            return Err("scans of subgroups are not known here".into());
        }
        let both = |a: &Value, b: &Value| match op {
            SubgroupOperation::Add => math::binary(BinaryOperator::Add, a, b, of),
            SubgroupOperation::Mul => math::binary(BinaryOperator::Multiply, a, b, of),
            SubgroupOperation::Min => math::function(MathFunction::Min, &[a, b], of),
            SubgroupOperation::Max => math::function(MathFunction::Max, &[a, b], of),
            SubgroupOperation::And | SubgroupOperation::All => math::binary(BinaryOperator::And, a, b, of),
            SubgroupOperation::Or | SubgroupOperation::Any => math::binary(BinaryOperator::InclusiveOr, a, b, of),
            SubgroupOperation::Xor => math::binary(BinaryOperator::ExclusiveOr, a, b, of),
        };
        let mut collected = Value::zero(value.components(), self.lanes);
        for lanes in self.active(mask)? {
            let of_lane = |lane| Value::uniform((0..value.components()).map(|c| value.get(c, lane)).collect());
            let mut result = of_lane(lanes[0]);
            for &lane in &lanes[1..] {
                result = both(&result, &of_lane(lane)).ok_or_else(|| format!("{op:?} of {of:?} is not known here"))?;
            }
            for &lane in lanes.iter() {
                for (component, &bits) in result.data.iter().enumerate() {
                    collected.data[component * self.lanes + lane] = bits;
                }
            }
        }
        Ok(collected)
    }

    /// Columns and rows of a matrix, and what it is made of.
    fn matrix(&self, expression: Handle<Expression>) -> Result<(usize, usize, Scalar)> {
        match *self.frame().info[expression].ty.inner_with(&self.module.types) {
            TypeInner::CooperativeMatrix { columns, rows, scalar, .. } => Ok((columns as usize, rows as usize, scalar)),
            ref other => Err(format!("{other:?} is no cooperative matrix").into()),
        }
    }

    /// The memory that a matrix lies in, an index into [`Machine::shared`], and where, for each active subgroup.
    fn matrix_places(
        &mut self,
        (columns, rows): (usize, usize),
        data: &CooperativeData,
        mask: &Mask,
    ) -> Result<(usize, Vec<Placed>)> {
        // Of vectors, the stride counts whole ones.
        let scalars = self.pointee(data.pointer)?.scalars.len() as u32;
        let (pointer, stride) = (self.evaluate(data.pointer, mask)?, self.evaluate(data.stride, mask)?);
        let (Pointer { root, offset, memory }, stride) = (pointer.pointer()?, stride.value()?);
        let (&Root::Shared(index), Memory::Cells) = (root, *memory) else {
            return Err("cooperative matrices are known here in workgroup memory only".into());
        };
        let mut places = Vec::new();
        for lanes in self.active(mask)? {
            let of_lane = |lane: usize| (offset.get(0, lane), stride.get(0, lane));
            let (first, stride) = of_lane(lanes[0]);
            if lanes.iter().any(|&lane| of_lane(lane) != (first, stride)) {
                return Err("invocations of a subgroup give different places of a cooperative matrix".into());
            }
            let place = |row: usize, column: usize| {
                let (major, minor) = if data.row_major { (row, column) } else { (column, row) };
                first.wrapping_add((major as u32).wrapping_mul(stride).wrapping_mul(scalars)).wrapping_add(minor as u32)
            };
            let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            places.push((lanes, all.map(|(row, column)| place(row, column)).collect()));
        }
        Ok((index, places))
    }

    /// One of a subgroup's invocations, nobody knows which, before it touches some shared memory.
    fn some_of(&self, lanes: &[usize], shared: usize) -> Who {
        Who { lane: Lane::OfSubgroup(self.seat(lanes[0]).0 as u32), ..self.who(shared, lanes[0]) }
    }

    pub(crate) fn load_matrix(
        &mut self,
        expression: Handle<Expression>,
        data: &CooperativeData,
        mask: &Mask,
    ) -> Result<Value> {
        let (columns, rows, _) = self.matrix(expression)?;
        let (index, places) = self.matrix_places((columns, rows), data, mask)?;
        let mut loaded = Value::zero(self.layouts.matrix_scalars(columns * rows), self.lanes);
        for (lanes, places) in places {
            self.count_matrix(index, false, &places);
            let who = self.some_of(&lanes, index);
            for (element, &at) in places.iter().enumerate() {
                let lane = lanes[element % lanes.len()];
                loaded.data[element / lanes.len() * self.lanes + lane] = self.shared[index].read(at, who, false)?;
            }
        }
        Ok(loaded)
    }

    pub(crate) fn store_matrix(
        &mut self,
        expression: Handle<Expression>,
        matrix: &Value,
        data: &CooperativeData,
        mask: &Mask,
    ) -> Result<()> {
        let (columns, rows, _) = self.matrix(expression)?;
        let (index, places) = self.matrix_places((columns, rows), data, mask)?;
        for (lanes, places) in places {
            self.count_matrix(index, true, &places);
            let who = self.some_of(&lanes, index);
            for (element, &at) in places.iter().enumerate() {
                let lane = lanes[element % lanes.len()];
                self.shared[index].write(at, who, false, matrix.get(element / lanes.len(), lane))?;
            }
        }
        Ok(())
    }

    pub(crate) fn multiply_matrices(
        &mut self,
        (left, a): Matrix<'_>,
        (right, b): Matrix<'_>,
        (sum, c): Matrix<'_>,
        mask: &Mask,
    ) -> Result<Value> {
        let ((inner, rows, _), (columns, inner_too, _)) = (self.matrix(left)?, self.matrix(right)?);
        let scalar = self.matrix(sum)?.2;
        if inner != inner_too || (scalar.kind, scalar.width) != (ScalarKind::Float, 4) {
            return Err("cooperative matrices that are not multiplied here".into());
        }
        let mut product = Value::zero(self.layouts.matrix_scalars(columns * rows), self.lanes);
        for lanes in self.active(mask)? {
            self.count_matrix_multiply_adds(rows * columns * inner);
            let at = |matrix: &Value, element: usize| matrix.get(element / lanes.len(), lanes[element % lanes.len()]);
            let [a, b]: [Vec<u32>; 2] = [(a, rows * inner), (b, inner * columns)]
                .map(|(matrix, len)| (0..len).map(|element| at(matrix, element)).collect());
            for element in 0..rows * columns {
                let (row, column) = (element / columns, element % columns);
                let sum = (usize::from(self.kernel.wrong_matrices)..inner).fold(at(c, element), |sum, k| {
                    math::multiply_add(a[row * inner + k], b[k * columns + column], sum)
                });
                product.data[element / lanes.len() * self.lanes + lanes[element % lanes.len()]] = sum;
            }
        }
        Ok(product)
    }
}
