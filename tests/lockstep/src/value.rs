//! Values of all invocations of a workgroup at once.

use std::rc::Rc;

/// Bits of a value's scalars, one after the other ("components"; those of arrays and structs in their order): one number for
/// all invocations where it does not depend on them, else one for each.
///
/// Floats are their bits, `f16` those of the `f32` of the same value, `bool` is 0 or 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    /// Component by component, and in a component lane by lane.
    pub(crate) data: Vec<u32>,
    /// Lanes of a component: 1 where all invocations have the same.
    pub(crate) width: usize,
}

impl Value {
    /// The same in all invocations.
    pub(crate) fn uniform(data: Vec<u32>) -> Self {
        Self { data, width: 1 }
    }

    pub(crate) fn zero(components: usize, lanes: usize) -> Self {
        Self { data: vec![0; components * lanes], width: lanes }
    }

    /// One component, by lane.
    pub(crate) fn by_lane(lanes: usize, of: impl FnMut(usize) -> u32) -> Self {
        Self { data: (0..lanes).map(of).collect(), width: lanes }
    }

    pub(crate) fn components(&self) -> usize {
        self.data.len() / self.width
    }

    pub(crate) fn is_uniform(&self) -> bool {
        self.width == 1
    }

    #[inline]
    pub(crate) fn get(&self, component: usize, lane: usize) -> u32 {
        if self.width == 1 { self.data[component] } else { self.data[component * self.width + lane] }
    }

    fn component(&self, component: usize) -> &[u32] {
        &self.data[component * self.width..][..self.width]
    }

    /// Some of the components, in this order.
    pub(crate) fn pick(&self, components: impl IntoIterator<Item = usize>) -> Self {
        let mut data = Vec::new();
        components.into_iter().for_each(|component| data.extend_from_slice(self.component(component)));
        Self { data, width: self.width }
    }

    /// All components of all parts, one part after the other.
    pub(crate) fn concat(parts: &[&Self]) -> Self {
        let width = parts.iter().map(|part| part.width).max().unwrap_or(1);
        let components: usize = parts.iter().map(|part| part.components()).sum();
        let mut data = Vec::with_capacity(components * width);
        for part in parts {
            if part.width == width {
                data.extend_from_slice(&part.data);
            } else {
                part.data.iter().for_each(|&bits| data.extend(std::iter::repeat_n(bits, width)));
            }
        }
        Self { data, width }
    }

    pub(crate) fn map(&self, f: impl Fn(u32) -> u32) -> Self {
        Self { data: self.data.iter().map(|&bits| f(bits)).collect(), width: self.width }
    }

    /// Component by component; a scalar meets every component of a vector.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(u32, u32) -> u32) -> Self {
        let components = self.components().max(other.components());
        let width = self.width.max(other.width);
        let mut data = Vec::with_capacity(components * width);
        for component in 0..components {
            let left = self.component(component.min(self.components() - 1));
            let right = other.component(component.min(other.components() - 1));
            match (left, right) {
                (&[left], _) => data.extend(right.iter().map(|&right| f(left, right))),
                (_, &[right]) => data.extend(left.iter().map(|&left| f(left, right))),
                _ => data.extend(left.iter().zip(right).map(|(&left, &right)| f(left, right))),
            }
        }
        Self { data, width }
    }

    /// Component by component, where all three have as many.
    pub(crate) fn zip3(&self, second: &Self, third: &Self, f: impl Fn(u32, u32, u32) -> u32) -> Self {
        let width = self.width.max(second.width).max(third.width);
        let components = self.components().max(second.components()).max(third.components());
        let mut data = Vec::with_capacity(components * width);
        let at = |value: &Self, component: usize, lane| value.get(component.min(value.components() - 1), lane);
        for component in 0..components {
            data.extend(
                (0..width)
                    .map(|lane| f(at(self, component, lane), at(second, component, lane), at(third, component, lane))),
            );
        }
        Self { data, width }
    }

    /// Takes `other`'s numbers in some of the lanes.
    pub(crate) fn merge(&mut self, other: &Self, lanes: &Mask) {
        assert_eq!(self.width, lanes.len(), "a value by lane");
        for (component, numbers) in self.data.chunks_mut(self.width).enumerate() {
            for (lane, number) in numbers.iter_mut().enumerate().filter(|(lane, _)| lanes.has(*lane)) {
                *number = other.get(component, lane);
            }
        }
    }
}

/// Some of a workgroup's invocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    lanes: Rc<[bool]>,
    count: usize,
}

impl Mask {
    pub(crate) fn all(lanes: usize) -> Self {
        Self { lanes: vec![true; lanes].into(), count: lanes }
    }

    pub(crate) fn none(lanes: usize) -> Self {
        Self { lanes: vec![false; lanes].into(), count: 0 }
    }

    fn new(lanes: Rc<[bool]>) -> Self {
        let count = lanes.iter().filter(|&&lane| lane).count();
        Self { lanes, count }
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    #[inline]
    pub(crate) fn has(&self, lane: usize) -> bool {
        self.lanes[lane]
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn is_all(&self) -> bool {
        self.count == self.lanes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.lanes.iter().enumerate().filter(|(_, has)| **has).map(|(lane, _)| lane)
    }

    pub(crate) fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// Those for which a condition is `wanted`.
    pub(crate) fn where_is(&self, condition: &Value, wanted: bool) -> Self {
        if condition.is_uniform() {
            return if (condition.data[0] != 0) == wanted { self.clone() } else { Self::none(self.len()) };
        }
        Self::new(self.lanes.iter().zip(&condition.data).map(|(&has, &bits)| has && (bits != 0) == wanted).collect())
    }

    pub(crate) fn or(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_all() {
            return other.clone();
        }
        if other.is_empty() || self.is_all() {
            return self.clone();
        }
        Self::new(self.lanes.iter().zip(other.lanes.iter()).map(|(&a, &b)| a || b).collect())
    }
}
