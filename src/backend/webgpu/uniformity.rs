//! A check that `naga` does not make: no barrier and no subgroup operation where the invocations of a workgroup may have
//! gone different ways, and no operation on cooperative matrices where those of a subgroup may have.
//!
//! A value is *divergent* if the invocations of a workgroup may see different ones: it comes from an invocation's ids, from
//! memory that the kernel writes, or from a subgroup operation. Control flow is divergent below a branch on such a value,
//! after a `return` below one, and in a loop that such a branch leaves or continues. Coarser than WGSL's own analysis (a
//! local variable is divergent everywhere if it is so anywhere), so it may object to a correct kernel, never the reverse.

use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, Module, Statement, StorageAccess, TypeInner,
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What was found in the module's entry points, as `function: operation`.
pub(super) fn barriers_in_divergent_flow(module: &Module) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in &module.entry_points {
        for scope in [Scope::Workgroup, Scope::Subgroup] {
            let divergent = |argument: &naga::FunctionArgument| scope.is_divergent(argument.binding.as_ref());
            let arguments = entry.function.arguments.iter().map(divergent).collect();
            Analysis::new(module, &entry.function, &entry.name, arguments, scope).run(false, &mut found);
        }
    }
    found
}

/// Whose invocations must go the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// For barriers, and for subgroup operations: stricter than they need.
    Workgroup,
    /// For operations on cooperative matrices.
    Subgroup,
}

impl Scope {
    fn is_divergent(self, binding: Option<&Binding>) -> bool {
        let uniform = [
            BuiltIn::WorkGroupId,
            BuiltIn::WorkGroupSize,
            BuiltIn::NumWorkGroups,
            BuiltIn::NumSubgroups,
            BuiltIn::SubgroupSize,
        ];
        match binding {
            Some(Binding::BuiltIn(BuiltIn::SubgroupId)) => self == Self::Workgroup,
            Some(Binding::BuiltIn(builtin)) => !uniform.contains(builtin),
            _ => true,
        }
    }
}

/// Which ways out of a block are taken by some invocations only.
#[derive(Clone, Copy, Default)]
struct Exits {
    /// `break` or `continue`.
    of_loop: bool,
    of_function: bool,
}

struct Analysis<'a> {
    module: &'a Module,
    function: &'a Function,
    name: &'a str,
    scope: Scope,
    /// For each argument, whether it is divergent.
    arguments: Vec<bool>,
    locals: HashSet<Handle<naga::LocalVariable>>,
    call_results: HashMap<Handle<Expression>, bool>,
    returns_divergent: bool,
}

impl<'a> Analysis<'a> {
    fn new(module: &'a Module, function: &'a Function, name: &'a str, arguments: Vec<bool>, scope: Scope) -> Self {
        let (locals, call_results) = (HashSet::new(), HashMap::new());
        Self { module, function, name, scope, arguments, locals, call_results, returns_divergent: false }
    }

    /// Whether the function's result is divergent.
    fn run(mut self, divergent_flow: bool, found: &mut BTreeSet<String>) -> bool {
        loop {
            let before = (self.locals.len(), self.call_results.clone());
            self.block(&self.function.body, divergent_flow, found);
            if before == (self.locals.len(), self.call_results.clone()) {
                return self.returns_divergent;
            }
        }
    }

    fn block(&mut self, block: &'a Block, divergent_flow: bool, found: &mut BTreeSet<String>) -> Exits {
        let mut exits = Exits::default();
        for statement in block {
            let flow = divergent_flow || exits.of_loop || exits.of_function;
            let inner = self.statement(statement, flow, found);
            exits.of_loop |= inner.of_loop;
            exits.of_function |= inner.of_function;
        }
        exits
    }

    fn branches(
        &mut self,
        on: Handle<Expression>,
        blocks: &[&'a Block],
        flow: bool,
        found: &mut BTreeSet<String>,
    ) -> Exits {
        let flow = flow || self.value(on);
        let mut exits = Exits::default();
        for block in blocks {
            let inner = self.block(block, flow, found);
            exits.of_loop |= inner.of_loop;
            exits.of_function |= inner.of_function;
        }
        exits
    }

    fn statement(&mut self, statement: &'a Statement, flow: bool, found: &mut BTreeSet<String>) -> Exits {
        let mut exits = Exits::default();
        match statement {
            Statement::Emit(range) => {
                let is_matrix_op = |expression: &Expression| {
                    matches!(expression, Expression::CooperativeLoad { .. } | Expression::CooperativeMultiplyAdd { .. })
                };
                if range.clone().any(|expression| is_matrix_op(&self.function.expressions[expression])) {
                    self.must_be_uniform("matrix operation", Scope::Subgroup, flow, found);
                }
            }
            // The result of an atomic operation is divergent as any expression that is not told apart; it writes no local.
            Statement::Kill | Statement::Atomic { .. } => {}
            Statement::Block(block) => return self.block(block, flow, found),
            Statement::If { condition, accept, reject } => {
                return self.branches(*condition, &[accept, reject], flow, found);
            }
            Statement::Switch { selector, cases } => {
                let blocks: Vec<&Block> = cases.iter().map(|case| &case.body).collect();
                return self.branches(*selector, &blocks, flow, found);
            }
            Statement::Loop { body, continuing, break_if } => {
                // Once more if an invocation may leave early: then the next round is divergent from its start.
                let mut flow = flow;
                loop {
                    let inner = self.block(body, flow, found);
                    let end = self.block(continuing, flow || inner.of_loop || inner.of_function, found);
                    exits.of_function |= inner.of_function || end.of_function;
                    let leaves = break_if.is_some_and(|condition| self.value(condition));
                    if flow || !(leaves || inner.of_loop || exits.of_function) {
                        break;
                    }
                    flow = true;
                }
            }
            Statement::Break | Statement::Continue => exits.of_loop = flow,
            Statement::Return { value } => {
                exits.of_function = flow;
                self.returns_divergent |= flow || value.is_some_and(|value| self.value(value));
            }
            Statement::Store { pointer, value } => {
                if flow || self.value(*value) || self.value(*pointer) {
                    self.taint(*pointer);
                }
            }
            Statement::Call { function, arguments, result } => self.call(*function, arguments, *result, flow, found),
            Statement::ControlBarrier(_) => self.must_be_uniform("barrier", Scope::Workgroup, flow, found),
            Statement::CooperativeStore { .. } => {
                self.must_be_uniform("matrix operation", Scope::Subgroup, flow, found);
            }
            Statement::SubgroupBallot { .. }
            | Statement::SubgroupGather { .. }
            | Statement::SubgroupCollectiveOperation { .. } => {
                self.must_be_uniform("subgroup operation", Scope::Workgroup, flow, found);
            }
            other => panic!("{}: teach the uniformity check {other:?}", self.name),
        }
        exits
    }

    fn must_be_uniform(&self, what: &str, scope: Scope, flow: bool, found: &mut BTreeSet<String>) {
        if flow && scope == self.scope {
            found.insert(format!("{}: {what} in divergent control flow", self.name));
        }
    }

    fn call(
        &mut self,
        callee: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        flow: bool,
        found: &mut BTreeSet<String>,
    ) {
        let divergent = arguments.iter().map(|&argument| self.value(argument)).collect();
        // What is passed by pointer may be written.
        for &argument in arguments {
            self.taint(argument);
        }
        let function = &self.module.functions[callee];
        let name = function.name.as_deref().unwrap_or("a function");
        let is_divergent = Analysis::new(self.module, function, name, divergent, self.scope).run(flow, found);
        if let Some(result) = result {
            *self.call_results.entry(result).or_default() |= is_divergent;
        }
    }

    /// Marks the local variable behind a pointer, if it is one.
    fn taint(&mut self, pointer: Handle<Expression>) {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(local) => {
                self.locals.insert(local);
            }
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.taint(base),
            _ => {}
        }
    }

    /// Whether a value, or where a pointer points, is divergent.
    fn value(&self, expression: Handle<Expression>) -> bool {
        let any = |all: &[Handle<Expression>]| all.iter().any(|&one| self.value(one));
        match &self.function.expressions[expression] {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::ZeroValue(_)
            | Expression::GlobalVariable(_)
            | Expression::LocalVariable(_) => false,
            Expression::Compose { components, .. } => any(components),
            Expression::Access { base, index } => any(&[*base, *index]),
            Expression::AccessIndex { base, index } => match &self.function.expressions[*base] {
                // A struct of builtins: some of them are uniform.
                Expression::FunctionArgument(argument) => self.member(*argument, *index),
                _ => self.value(*base),
            },
            Expression::FunctionArgument(argument) => self.arguments[*argument as usize],
            Expression::Load { pointer } => self.value(*pointer) || self.memory(*pointer),
            Expression::Splat { value, .. } | Expression::Swizzle { vector: value, .. } => self.value(*value),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => self.value(*expr),
            Expression::Binary { left, right, .. } => any(&[*left, *right]),
            Expression::Select { condition, accept, reject } => any(&[*condition, *accept, *reject]),
            Expression::Relational { argument, .. } => self.value(*argument),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                self.value(*arg) || [arg1, arg2, arg3].into_iter().flatten().any(|&one| self.value(one))
            }
            Expression::CallResult(_) => self.call_results.get(&expression).copied().unwrap_or(false),
            _ => true,
        }
    }

    fn member(&self, argument: u32, index: u32) -> bool {
        let ty = self.function.arguments[argument as usize].ty;
        match &self.module.types[ty].inner {
            TypeInner::Struct { members, .. } if members[index as usize].binding.is_some() => {
                self.scope.is_divergent(members[index as usize].binding.as_ref())
            }
            _ => self.arguments[argument as usize],
        }
    }

    /// Whether what a pointer leads to may be different for different invocations at the same address.
    fn memory(&self, pointer: Handle<Expression>) -> bool {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(local) => self.locals.contains(&local),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.memory(base),
            Expression::GlobalVariable(global) => match self.module.global_variables[global].space {
                AddressSpace::Immediate | AddressSpace::Uniform => false,
                AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                _ => true,
            },
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a kernel with this body; `li` is the invocation's index, `wg` the workgroup's, `sg` the subgroup's.
    fn check(body: &str) -> usize {
        let source = format!(
            "enable wgpu_cooperative_matrix;
             @group(0) @binding(0) var<storage, read> input: array<u32>;
             @group(0) @binding(1) var<storage, read_write> out: array<u32>;
             var<workgroup> tile: array<f32, 64>;
             fn sync() {{ workgroupBarrier(); }}
             fn early(x: u32) -> u32 {{ if (x > 3u) {{ return 1u; }} return 2u; }}
             @compute @workgroup_size(64)
             fn main(
                 @builtin(local_invocation_index) li: u32,
                 @builtin(workgroup_id) wg: vec3<u32>,
                 @builtin(subgroup_id) sg: u32,
             ) {{ {body} }}"
        );
        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
        barriers_in_divergent_flow(&module).len()
    }

    #[test]
    fn divergent_barriers_are_found() {
        for body in [
            "if (li < 3u) { workgroupBarrier(); }",
            "if (li < 3u) { return; } workgroupBarrier();",
            "if (li < 3u) { sync(); }",
            "for (var i = li; i < 99u; i += 64u) { workgroupBarrier(); }",
            "for (var i = 0u; i < 9u; i++) { if (out[i] == 0u) { break; } workgroupBarrier(); }",
            "for (var i = 0u; i < 9u; i++) { workgroupBarrier(); if (li == i) { break; } }",
            "for (var i = 0u; i < 9u; i++) { workgroupBarrier(); if (li == i) { return; } }",
            "for (var i = 0u; i < 9u; i++) { if (li == i) { continue; } workgroupBarrier(); }",
            "var n = 4u; if (li == 0u) { n = 5u; } for (var i = 0u; i < n; i++) { workgroupBarrier(); }",
            "if (early(li) == 1u) { workgroupBarrier(); }",
            "var a: array<u32, 4>; a[li & 3u] = 1u; if (a[0] == 1u) { workgroupBarrier(); }",
            "if (subgroupAdd(wg.x) == 1u) { workgroupBarrier(); }",
            "if (li < 3u) { out[li] = subgroupAdd(li); }",
            "switch li { case 1u: { workgroupBarrier(); } default: {} }",
            "if (sg == 0u) { workgroupBarrier(); }",
            "if (li < 8u) { let m = coopLoad<coop_mat8x8<f32, C>>(&tile[0], 8u); }",
            "let m = coopLoad<coop_mat8x8<f32, C>>(&tile[0], 8u); if (li < 8u) { coopStore(m, &tile[0], 8u); }",
        ] {
            assert_eq!(check(body), 1, "{body}");
        }
    }

    #[test]
    fn uniform_barriers_pass() {
        for body in [
            "if (wg.x < 3u) { return; } workgroupBarrier();",
            "if (input[wg.y] < 3u) { workgroupBarrier(); }",
            "for (var i = li; i < 99u; i += 64u) { out[i] = 1u; } workgroupBarrier();",
            "for (var i = input[wg.x]; i < 99u; i += 16u) { if (li < i) { out[li] = i; } sync(); }",
            "workgroupBarrier(); if (li < 3u) { return; } out[li] = 1u;",
            "if (sg == 0u) { let m = coopLoad<coop_mat8x8<f32, C>>(&tile[0], 8u); coopStore(m, &tile[0], 8u); }",
            "if (early(wg.x) == 1u) { workgroupBarrier(); } out[li] = early(li) + subgroupAdd(li);",
        ] {
            assert_eq!(check(body), 0, "{body}");
        }
    }
}
