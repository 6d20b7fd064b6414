//! Counts what a dispatch does while it runs.

use super::counts::{Access, Counts, Meter, Traffic};
use super::machine::{Given, Machine, Pointer, Root};
use super::value::{Mask, Value};
use naga::{Arena, BinaryOperator, Expression, Handle, Literal, MathFunction, ScalarKind, Span, TypeInner};
use std::collections::{HashMap, HashSet};

/// Words that an L1 cache, or workgroup memory, gives at a time: one of each bank.
const BANKS: usize = 32;
/// Words of a sector, the least that comes from L2 or further.
const SECTOR_WORDS: u32 = 8;

/// Counts a dispatch while it runs.
#[derive(Default)]
pub(crate) struct Counter {
    counts: Counts,
    /// By place in the source.
    index_of_line: HashMap<Option<u32>, usize>,
    /// By memory, whether it is written, and place in the source.
    index_of_access: HashMap<(usize, bool, Option<u32>), usize>,
    /// Words of each buffer that the workgroup has asked for.
    words: HashMap<usize, HashSet<u32>>,
    traffic: HashMap<usize, Traffic>,
}

impl Counter {
    /// A workgroup has ended.
    fn end_workgroup(&mut self, name: impl Fn(usize) -> String) {
        self.counts.sampled += 1;
        for (index, words) in self.words.drain() {
            let sectors: HashSet<u32> = words.iter().map(|word| word / SECTOR_WORDS).collect();
            let empty = || Traffic { buffer: name(index), used_bytes: 0, moved_bytes: 0 };
            let traffic = self.traffic.entry(index).or_insert_with(empty);
            traffic.used_bytes += 4 * words.len() as u64;
            traffic.moved_bytes += u64::from(4 * SECTOR_WORDS) * sectors.len() as u64;
        }
    }
}

/// Where a piece of the source begins.
fn start_of(span: Span) -> Option<u32> {
    span.to_range().map(|range| range.start as u32)
}

fn is_constant(expressions: &Arena<Expression>, of: Handle<Expression>) -> bool {
    match &expressions[of] {
        Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => true,
        Expression::Splat { value, .. } => is_constant(expressions, *value),
        Expression::Compose { components, .. } => components.iter().all(|&part| is_constant(expressions, part)),
        _ => false,
    }
}

/// What an operation costs.
enum Cost {
    Operation,
    Conversion,
    Special,
}

impl Machine<'_> {
    pub(crate) fn end_counted_workgroup(&mut self) {
        let Some(mut counter) = self.counter.take() else { return };
        counter.end_workgroup(|index| self.shared[index].name().to_owned());
        self.counter = Some(counter);
    }

    /// Gives what was counted to the meter.
    pub(crate) fn end_counted_dispatch(&mut self, meter: &Meter) {
        let Some(Counter { mut counts, traffic, .. }) = self.counter.take() else { return };
        counts.kernel = self.kernel.name().to_owned();
        counts.workgroups = self.grid.iter().product();
        counts.workgroup_size = self.lanes;
        counts.subgroup_size = self.kernel.subgroup_size;
        let mut traffic: Vec<(usize, Traffic)> = traffic.into_iter().collect();
        traffic.sort_by_key(|&(index, _)| index);
        counts.buffers = traffic.into_iter().map(|(_, traffic)| traffic).collect();
        meter.add(counts);
    }

    /// Subgroups that have an active invocation.
    fn active_subgroups(&self, mask: &Mask) -> u64 {
        let is_active = |lanes: &&std::rc::Rc<[usize]>| lanes.iter().any(|&lane| mask.has(lane));
        self.subgroups.iter().filter(is_active).count() as u64
    }

    /// Components of a value that are not the same in all active invocations.
    fn varying(value: &Value, mask: &Mask) -> u64 {
        let Some(first) = mask.first().filter(|_| !value.is_uniform()) else { return 0 };
        let varies = |component: &usize| {
            let of_first = value.get(*component, first);
            mask.iter().any(|lane| value.get(*component, lane) != of_first)
        };
        (0..value.components()).filter(varies).count() as u64
    }

    pub(crate) fn count_expression(&mut self, expression: Handle<Expression>, given: &Given, mask: &Mask) {
        if self.counter.is_none() {
            return;
        }
        match given {
            Given::Pointer(Pointer { root: Root::Shared(_), offset, .. }) if Self::varying(offset, mask) > 0 => {
                self.count_operations(Cost::Operation, self.active_subgroups(mask));
            }
            Given::Pointer(_) => {}
            Given::Value(value) => {
                let Some((cost, times)) = self.cost(expression) else { return };
                // Halves are computed by two.
                let together = if self.scalar(expression).width == 2 { 2 } else { 1 };
                let times = times * Self::varying(value, mask).div_ceil(together) * self.active_subgroups(mask);
                self.count_operations(cost, times);
            }
        }
    }

    /// What each component of an expression costs, and how often; `None` for what is free.
    fn cost(&self, expression: Handle<Expression>) -> Option<(Cost, u64)> {
        use MathFunction as M;
        let expressions = &self.frame().function.expressions;
        let cost = match expressions[expression] {
            Expression::Binary { op, left, right } if self.is_part_of_another(op, left, right) => return None,
            Expression::Binary { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. }
                if !is_constant(expressions, right) =>
            {
                Cost::Special
            }
            Expression::Binary { .. } | Expression::Select { .. } => Cost::Operation,
            Expression::As { expr, kind, convert: Some(_) } => {
                let floats = [self.scalar(expr).kind, kind].map(|kind| kind == ScalarKind::Float);
                if floats == [false, false] || self.packs_again(expr) {
                    return None;
                }
                Cost::Conversion
            }
            Expression::Math { fun: M::Dot, arg, .. } => {
                match *self.frame().info[arg].ty.inner_with(&self.module.types) {
                    TypeInner::Vector { size, .. } => return Some((Cost::Operation, size as u64)),
                    _ => Cost::Operation,
                }
            }
            Expression::Math { fun: M::Unpack2x16float, .. } if self.is_packed_again(expression) => return None,
            Expression::Math { fun: M::Unpack2x16float | M::Pack2x16float, .. } => Cost::Conversion,
            Expression::Math { fun: M::Exp | M::Exp2 | M::Log | M::Log2 | M::Sqrt | M::InverseSqrt, .. } => {
                Cost::Special
            }
            Expression::Math { .. } => Cost::Operation,
            _ => return None,
        };
        Some((cost, 1))
    }

    /// Whether all of a value are halves that were unpacked from words: as f16, they are in these as they were.
    fn packs_again(&self, value: Handle<Expression>) -> bool {
        let expressions = &self.frame().function.expressions;
        let unpacks = |of: Handle<Expression>| {
            matches!(expressions[of], Expression::Math { fun: MathFunction::Unpack2x16float, .. })
        };
        match &expressions[value] {
            Expression::Compose { components, .. } => components.iter().all(|&part| unpacks(part)),
            _ => unpacks(value),
        }
    }

    /// Whether the halves that are unpacked here become f16 again.
    fn is_packed_again(&self, unpacked: Handle<Expression>) -> bool {
        let expressions = &self.frame().function.expressions;
        expressions.iter().any(|(_, expression)| match *expression {
            Expression::As { expr, convert: Some(2), .. } => {
                let is_part = matches!(&expressions[expr], Expression::Compose { components, .. } if components.contains(&unpacked));
                (is_part || expr == unpacked) && self.packs_again(expr)
            }
            _ => false,
        })
    }

    /// Whether a compiler makes this one instruction with what it takes, or none: a product and a sum, bits that are masked
    /// and set, what a constant of 0 or 1 leaves as it is.
    fn is_part_of_another(&self, op: BinaryOperator, left: Handle<Expression>, right: Handle<Expression>) -> bool {
        use BinaryOperator as Op;
        let expressions = &self.frame().function.expressions;
        let either_is = |wanted: Op| {
            [left, right].iter().any(|&of| matches!(expressions[of], Expression::Binary { op, .. } if op == wanted))
        };
        let number = |of: Handle<Expression>| match expressions[of] {
            Expression::Literal(Literal::U32(number)) => Some(number),
            _ => None,
        };
        match op {
            Op::Add | Op::Subtract => number(left) == Some(0) || number(right) == Some(0) || either_is(Op::Multiply),
            Op::Multiply | Op::Divide | Op::Modulo => number(right) == Some(1),
            Op::InclusiveOr | Op::ExclusiveOr => either_is(Op::And),
            _ => false,
        }
    }

    fn count_operations(&mut self, cost: Cost, times: u64) {
        let Some(Counter { counts, index_of_line, .. }) = &mut self.counter else { return };
        match cost {
            Cost::Operation => counts.operations += times,
            Cost::Conversion => counts.conversions += times,
            Cost::Special => counts.special += times,
        }
        let line = *index_of_line.entry(start_of(self.at)).or_insert_with(|| {
            let line = self.kernel.shader.line(self.at);
            counts.lines.iter().position(|(known, _)| *known == line).unwrap_or_else(|| {
                counts.lines.push((line, 0));
                counts.lines.len() - 1
            })
        });
        counts.lines[line].1 += times;
    }

    /// Exchanges of a value's components, in so many rounds, between the invocations of the active subgroups.
    pub(crate) fn count_exchanges(&mut self, components: usize, rounds: u32, mask: &Mask) {
        let subgroups = self.active_subgroups(mask);
        if let Some(counter) = &mut self.counter {
            counter.counts.exchanges += components as u64 * u64::from(rounds) * subgroups;
        }
    }

    pub(crate) fn count_matrix_multiply_adds(&mut self, count: usize) {
        if let Some(counter) = &mut self.counter {
            counter.counts.matrix_multiply_adds += count as u64;
        }
    }

    /// The access of the statement that is being run to `Machine::shared[index]`: each active invocation's, that begins at
    /// `offset` and goes to these scalars behind it.
    pub(crate) fn count_access(&mut self, index: usize, writes: bool, offset: &Value, scalars: &[u32], mask: &Mask) {
        if self.counter.is_none() {
            return;
        }
        // As wide as memory is accessed: neighbours, four at most.
        let vectors = scalars.chunk_by(|a, b| a + 1 == *b).flat_map(|row| row.chunks(4));
        for vector in vectors {
            for lanes in self.subgroups.clone() {
                let active = lanes.iter().filter(|&&lane| mask.has(lane));
                let starts: Vec<u32> = active.map(|&lane| offset.get(0, lane).wrapping_add(vector[0])).collect();
                self.count_request(index, writes, &starts, vector.len() as u32);
            }
        }
    }

    /// What invocations of a subgroup ask for at once: so many neighbours from each of these on.
    fn count_request(&mut self, index: usize, writes: bool, starts: &[u32], len: u32) {
        if starts.is_empty() {
            return;
        }
        let is_broadcast = starts.iter().all(|start| *start == starts[0]);
        let words = len.div_ceil(self.shared[index].cells_per_word) as usize;
        let together = if is_broadcast { starts.len() } else { BANKS / words };
        let asked: Vec<u32> = starts.iter().flat_map(|&start| (0..len).map(move |i| start.wrapping_add(i))).collect();
        self.count_words(index, writes, &asked, together * len as usize);
    }

    /// A subgroup's access to a cooperative matrix.
    pub(crate) fn count_matrix(&mut self, index: usize, writes: bool, places: &[u32]) {
        if self.counter.is_some() {
            self.count_words(index, writes, places, places.len());
        }
    }

    /// A request for words, or cells, of which so many are given at a time.
    fn count_words(&mut self, index: usize, writes: bool, asked: &[u32], together: usize) {
        let Some(counter) = &mut self.counter else { return };
        let shared = &self.shared[index];
        let key = (index, writes, start_of(self.at));
        let access = *counter.index_of_access.entry(key).or_insert_with(|| {
            counter.counts.accesses.push(Access {
                memory: shared.name().to_owned(),
                is_of_workgroup: shared.is_of_workgroup,
                writes,
                line: self.kernel.shader.line(self.at),
                requests: 0,
                words: 0,
                passes: 0,
                fewest_passes: 0,
                sectors: 0,
            });
            counter.counts.accesses.len() - 1
        });
        let access = &mut counter.counts.accesses[access];
        let words_of = |asked: &[u32]| asked.iter().map(|at| at / shared.cells_per_word).collect::<HashSet<u32>>();
        access.requests += 1;
        for asked in asked.chunks(together) {
            let (mut in_bank, words) = ([0; BANKS], words_of(asked));
            words.iter().for_each(|word| in_bank[*word as usize % BANKS] += 1);
            access.passes += in_bank.into_iter().max().unwrap_or(0);
            access.fewest_passes += words.len().div_ceil(BANKS) as u64;
        }
        let words = words_of(asked);
        access.words += words.len() as u64;
        access.sectors += words.iter().map(|word| word / SECTOR_WORDS).collect::<HashSet<u32>>().len() as u64;
        if !shared.is_of_workgroup {
            counter.words.entry(index).or_default().extend(words);
        }
    }
}
