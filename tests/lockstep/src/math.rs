//! Arithmetic on the bits of scalars: functions of floats are as rough as WGSL lets them be (its table of accuracies), now
//! too large and now too small, products and sums are rounded one by one.

use super::value::Value;
use half::f16;
use naga::{BinaryOperator, MathFunction, Scalar, ScalarKind, UnaryOperator};

#[inline]
fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// The bits of a float of a type: an f16 is the nearest of that type, and a subnormal f32 is zero, as GPUs may have it.
#[inline]
fn float(value: f32, width: u8) -> u32 {
    match width {
        2 => f16::from_f32(value).to_f32().to_bits(),
        _ if value.is_subnormal() => 0.0_f32.copysign(value).to_bits(),
        _ => value.to_bits(),
    }
}

/// A result that may be so many units in the last place off, and is, up or down as its argument's bits fall.
fn rough(exact: f32, ulps: f32, argument: f32) -> f32 {
    let unit = f32::from_bits(exact.to_bits() & 0x7f80_0000) * f32::EPSILON;
    let error = ulps.floor() * unit;
    if !exact.is_normal() || !error.is_finite() {
        return exact;
    }
    if goes_up(argument) { exact + error } else { exact - error }
}

fn goes_up(argument: f32) -> bool {
    argument.to_bits().wrapping_mul(0x9e37_79b9) >> 31 == 0
}

fn quotient(a: f32, b: f32) -> f32 {
    rough(a / b, 2.5, a - b)
}

fn inverse_sqrt(a: f32) -> f32 {
    rough(1.0 / a.sqrt(), 2.0, a)
}

fn exp(a: f32) -> f32 {
    rough(a.exp(), 3.0 + 2.0 * a.abs(), a)
}

fn exp2(a: f32) -> f32 {
    rough(a.exp2(), 3.0 + 2.0 * a.abs(), a)
}

/// From 0.5 to 2 it is the absolute error that is bounded.
fn rough_log(exact: f32, argument: f32) -> f32 {
    match argument {
        0.5..=2.0 if goes_up(argument) => exact + 2.0_f32.powi(-21),
        0.5..=2.0 => exact - 2.0_f32.powi(-21),
        _ => rough(exact, 3.0, argument),
    }
}

pub(crate) fn unary(op: UnaryOperator, value: &Value, of: Scalar) -> Value {
    match (op, of.kind) {
        (UnaryOperator::Negate, ScalarKind::Float) => value.map(|bits| bits ^ (1 << 31)),
        (UnaryOperator::Negate, _) => value.map(u32::wrapping_neg),
        (UnaryOperator::LogicalNot, _) => value.map(|bits| u32::from(bits == 0)),
        (UnaryOperator::BitwiseNot, _) => value.map(|bits| !bits),
    }
}

/// `None` where the operation is not known here.
pub(crate) fn binary(op: BinaryOperator, left: &Value, right: &Value, of: Scalar) -> Option<Value> {
    use BinaryOperator as Op;
    let zip = |g: &dyn Fn(u32, u32) -> u32| left.zip(right, g);
    Some(match of.kind {
        ScalarKind::Float => {
            let width = of.width;
            match op {
                Op::Add => left.zip(right, |a, b| float(f(a) + f(b), width)),
                Op::Subtract => left.zip(right, |a, b| float(f(a) - f(b), width)),
                Op::Multiply => left.zip(right, |a, b| float(f(a) * f(b), width)),
                Op::Divide => left.zip(right, |a, b| float(quotient(f(a), f(b)), width)),
                Op::Modulo => zip(&|a, b| float(f(a) % f(b), width)),
                Op::Equal => zip(&|a, b| u32::from(f(a) == f(b))),
                Op::NotEqual => zip(&|a, b| u32::from(f(a) != f(b))),
                Op::Less => zip(&|a, b| u32::from(f(a) < f(b))),
                Op::LessEqual => zip(&|a, b| u32::from(f(a) <= f(b))),
                Op::Greater => zip(&|a, b| u32::from(f(a) > f(b))),
                Op::GreaterEqual => zip(&|a, b| u32::from(f(a) >= f(b))),
                _ => return None,
            }
        }
        ScalarKind::Sint => {
            let signed = |g: &dyn Fn(i32, i32) -> i32| left.zip(right, |a, b| g(a as i32, b as i32) as u32);
            let compare = |g: &dyn Fn(i32, i32) -> bool| left.zip(right, |a, b| u32::from(g(a as i32, b as i32)));
            match op {
                Op::Divide => signed(&|a, b| if b == 0 { a } else { a.wrapping_div(b) }),
                Op::Modulo => signed(&|a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
                Op::Less => compare(&|a, b| a < b),
                Op::LessEqual => compare(&|a, b| a <= b),
                Op::Greater => compare(&|a, b| a > b),
                Op::GreaterEqual => compare(&|a, b| a >= b),
                Op::ShiftRight => left.zip(right, |a, b| ((a as i32) >> (b & 31)) as u32),
                _ => return bits(op, left, right),
            }
        }
        _ => return bits(op, left, right),
    })
}

/// What is the same for all integers, or holds for those without a sign.
fn bits(op: BinaryOperator, left: &Value, right: &Value) -> Option<Value> {
    use BinaryOperator as Op;
    Some(match op {
        Op::Add => left.zip(right, u32::wrapping_add),
        Op::Subtract => left.zip(right, u32::wrapping_sub),
        Op::Multiply => left.zip(right, u32::wrapping_mul),
        Op::Divide => left.zip(right, |a, b| a.checked_div(b).unwrap_or(a)),
        Op::Modulo => left.zip(right, |a, b| a.checked_rem(b).unwrap_or(0)),
        Op::Equal => left.zip(right, |a, b| u32::from(a == b)),
        Op::NotEqual => left.zip(right, |a, b| u32::from(a != b)),
        Op::Less => left.zip(right, |a, b| u32::from(a < b)),
        Op::LessEqual => left.zip(right, |a, b| u32::from(a <= b)),
        Op::Greater => left.zip(right, |a, b| u32::from(a > b)),
        Op::GreaterEqual => left.zip(right, |a, b| u32::from(a >= b)),
        Op::And | Op::LogicalAnd => left.zip(right, |a, b| a & b),
        Op::InclusiveOr | Op::LogicalOr => left.zip(right, |a, b| a | b),
        Op::ExclusiveOr => left.zip(right, |a, b| a ^ b),
        Op::ShiftLeft => left.zip(right, |a, b| a << (b & 31)),
        Op::ShiftRight => left.zip(right, |a, b| a >> (b & 31)),
    })
}

/// A conversion by value.
pub(crate) fn convert(value: &Value, from: Scalar, to: ScalarKind, width: u8) -> Option<Value> {
    use ScalarKind::{Bool, Float, Sint, Uint};
    Some(match (from.kind, to) {
        (Float, Float) => value.map(|bits| float(f(bits), width)),
        (Float, Uint) => value.map(|bits| f(bits) as u32),
        (Float, Sint) => value.map(|bits| f(bits) as i32 as u32),
        (Float, Bool) => value.map(|bits| u32::from(f(bits) != 0.0)),
        (Uint, Float) => value.map(|bits| float(bits as f32, width)),
        (Sint, Float) => value.map(|bits| float(bits as i32 as f32, width)),
        (Bool, Float) => value.map(|bits| float(bits as f32, width)),
        (Uint | Sint, Bool) => value.map(|bits| u32::from(bits != 0)),
        (Uint | Sint | Bool, Uint | Sint) | (Bool, Bool) => value.clone(),
        _ => return None,
    })
}

/// `None` where the function is not known here.
pub(crate) fn function(fun: MathFunction, arguments: &[&Value], of: Scalar) -> Option<Value> {
    use MathFunction as M;
    let first = arguments[0];
    let one = |g: fn(f32) -> f32| first.map(|a| float(g(f(a)), of.width));
    match (fun, arguments) {
        (M::Dot, [a, b]) => return Some(dot(a, b, of)),
        (M::Unpack2x16float, [a]) => return Some(unpack(a, 2, |bits, i| half_of(bits >> (16 * i)))),
        (M::Unpack4xI8, [a]) => return Some(unpack(a, 4, |bits, i| (bits >> (8 * i)) as u8 as i8 as i32 as u32)),
        (M::Unpack4xU8, [a]) => return Some(unpack(a, 4, |bits, i| (bits >> (8 * i)) & 0xff)),
        (M::Pack2x16float, [a]) => return Some(pack(a, 16, |bits| u32::from(f16::from_f32(f(bits)).to_bits()))),
        (M::Pack4xI8 | M::Pack4xU8, [a]) => return Some(pack(a, 8, |bits| bits & 0xff)),
        (M::Dot4I8Packed, [a, b]) => return Some(a.zip(b, dot_of_bytes)),
        (M::CountLeadingZeros, _) => return Some(first.map(u32::leading_zeros)),
        (M::CountOneBits, _) => return Some(first.map(u32::count_ones)),
        _ => {}
    }
    Some(match (of.kind, fun, arguments) {
        (ScalarKind::Float, M::Abs, _) => first.map(|bits| bits & !(1 << 31)),
        (ScalarKind::Float, M::Min, [a, b]) => a.zip(b, |a, b| f(a).min(f(b)).to_bits()),
        (ScalarKind::Float, M::Max, [a, b]) => a.zip(b, |a, b| f(a).max(f(b)).to_bits()),
        (ScalarKind::Float, M::Clamp, [a, low, high]) => {
            a.zip3(low, high, |a, low, high| f(a).max(f(low)).min(f(high)).to_bits())
        }
        (ScalarKind::Float, M::Fma, [a, b, c]) => a.zip3(b, c, |a, b, c| float(f(a) * f(b) + f(c), of.width)),
        (ScalarKind::Float, M::Exp, _) => one(exp),
        (ScalarKind::Float, M::Exp2, _) => one(exp2),
        (ScalarKind::Float, M::Log, _) => one(|a| rough_log(a.ln(), a)),
        (ScalarKind::Float, M::Log2, _) => one(|a| rough_log(a.log2(), a)),
        (ScalarKind::Float, M::Sqrt, _) => one(|a| quotient(1.0, inverse_sqrt(a))),
        (ScalarKind::Float, M::InverseSqrt, _) => one(inverse_sqrt),
        (ScalarKind::Float, M::Ceil, _) => one(f32::ceil),
        (ScalarKind::Float, M::Floor, _) => one(f32::floor),
        (ScalarKind::Float, M::Trunc, _) => one(f32::trunc),
        (ScalarKind::Float, M::Round, _) => one(f32::round_ties_even),
        (ScalarKind::Sint, M::Abs, _) => first.map(|bits| (bits as i32).wrapping_abs() as u32),
        (ScalarKind::Sint, M::Min, [a, b]) => a.zip(b, |a, b| (a as i32).min(b as i32) as u32),
        (ScalarKind::Sint, M::Max, [a, b]) => a.zip(b, |a, b| (a as i32).max(b as i32) as u32),
        (ScalarKind::Sint, M::Clamp, [a, low, high]) => {
            a.zip3(low, high, |a, low, high| (a as i32).max(low as i32).min(high as i32) as u32)
        }
        (ScalarKind::Uint, M::Min, [a, b]) => a.zip(b, u32::min),
        (ScalarKind::Uint, M::Max, [a, b]) => a.zip(b, u32::max),
        (ScalarKind::Uint, M::Clamp, [a, low, high]) => a.zip3(low, high, |a, low, high| a.max(low).min(high)),
        _ => return None,
    })
}

fn half_of(bits: u32) -> u32 {
    f16::from_bits(bits as u16).to_f32().to_bits()
}

fn unpack(value: &Value, parts: u32, part: impl Fn(u32, u32) -> u32) -> Value {
    let parts: Vec<Value> = (0..parts).map(|i| value.map(|bits| part(bits, i))).collect();
    Value::concat(&parts.iter().collect::<Vec<_>>())
}

fn pack(value: &Value, bits_each: usize, part: impl Fn(u32) -> u32) -> Value {
    let shifted = |i: usize| value.pick([i]).map(|bits| part(bits) << (bits_each * i));
    (1..value.components()).fold(shifted(0), |packed, i| packed.zip(&shifted(i), |a, b| a | b))
}

fn dot(a: &Value, b: &Value, of: Scalar) -> Value {
    let product =
        |i: usize| binary(BinaryOperator::Multiply, &a.pick([i]), &b.pick([i]), of).expect("numbers have products");
    (1..a.components())
        .fold(product(0), |sum, i| binary(BinaryOperator::Add, &sum, &product(i), of).expect("numbers have sums"))
}

fn dot_of_bytes(a: u32, b: u32) -> u32 {
    let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    products.map(|(a, b)| i32::from(a as i8) * i32::from(b as i8)).sum::<i32>() as u32
}

/// The sum of a product of matrices.
pub(crate) fn multiply_add(a: u32, b: u32, sum: u32) -> u32 {
    float(f(a).mul_add(f(b), f(sum)), 4)
}
