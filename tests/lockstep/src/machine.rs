//! Runs a kernel: all invocations of a workgroup side by side, statement by statement, workgroup after workgroup.
//!
//! Invocations that went another way wait, so that those of a workgroup are together again after every branch and loop. A
//! barrier that not all of them come to is a fault, and so is an operation of a subgroup that some of its invocations are
//! not part of.

use super::kernel::Kernel;
use super::layout::{Layouts, Memory};
use super::shared::{Lane, Shared, Who};
use super::value::{Mask, Value};
use naga::valid::FunctionInfo;
use naga::{
    AddressSpace, AtomicFunction, Barrier, Binding, Block, BuiltIn, Expression, Function, GlobalVariable, Handle,
    Module, Scalar, ScalarKind, Span, Statement, TypeInner,
};
use std::collections::HashMap;
use std::rc::Rc;

/// Rounds of one loop, beyond which it is taken to have no end.
const MOST_ROUNDS: u32 = 1 << 22;

/// What workgroup memory holds before anybody writes.
const UNDEFINED: u32 = 0x7fc0_dead;

/// Why a kernel cannot go on, and the line where.
#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    line: Option<String>,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { message, line: None }
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

/// What an expression gives.
#[derive(Debug)]
pub(crate) enum Given {
    Value(Value),
    Pointer(Pointer),
}

impl Given {
    pub(crate) fn value(&self) -> Result<&Value> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Pointer(_) => Err("a pointer where a value is needed".into()),
        }
    }

    pub(crate) fn pointer(&self) -> Result<&Pointer> {
        match self {
            Self::Pointer(pointer) => Ok(pointer),
            Self::Value(_) => Err("a value where a pointer is needed".into()),
        }
    }
}

/// Where a pointer begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Root {
    /// Index into [`Machine::shared`], and the first word.
    Shared(usize, u32),
    /// A variable of a function that is being run: how deep, and which.
    Local(usize, usize),
}

#[derive(Debug)]
pub(crate) struct Pointer {
    pub(crate) root: Root,
    /// From the root, in words or cells.
    pub(crate) offset: Value,
    pub(crate) memory: Memory,
}

/// What a pointer points to.
pub(crate) struct Pointee {
    /// From where it begins, in words or cells.
    pub(crate) scalars: Vec<u32>,
    is_atomic: bool,
}

/// A function that is being run.
pub(crate) struct Frame<'a> {
    pub(crate) function: &'a Function,
    pub(crate) info: &'a FunctionInfo,
    pub(crate) arguments: Vec<Rc<Given>>,
    /// By expression.
    pub(crate) given: Vec<Option<Rc<Given>>>,
    /// By variable: cells, by lane.
    pub(crate) locals: Vec<Vec<u32>>,
    returned: Option<Value>,
}

/// Where lanes have gone that left a loop's body.
struct LoopExits {
    broke: Mask,
    continued: Mask,
}

pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) module: &'a Module,
    pub(crate) lanes: usize,
    pub(crate) layouts: Layouts<'a>,
    pub(crate) shared: Vec<Shared<'a>>,
    pub(crate) globals: HashMap<Handle<GlobalVariable>, (Root, Memory)>,
    pub(crate) frames: Vec<Frame<'a>>,
    /// The invocations of each subgroup.
    pub(crate) subgroups: Vec<Rc<[usize]>>,
    loops: Vec<LoopExits>,
    workgroup: [u32; 3],
    grid: [u32; 3],
    /// Barriers that the workgroup has passed.
    epoch: u32,
}

/// What a dispatch binds: buffers by binding, and the parameters' words.
pub(crate) struct Bound<'a> {
    pub(crate) buffers: Vec<(u32, Shared<'a>)>,
    pub(crate) immediates: &'a mut [u32],
}

/// Runs a kernel for every workgroup of a grid.
pub(crate) fn dispatch(kernel: &Kernel, bound: Bound<'_>, grid: [u32; 3]) -> std::result::Result<(), String> {
    let module = &kernel.shader.module;
    let smallest = kernel.subgroups().iter().map(|members| members.len()).min().unwrap_or(1);
    let layouts = Layouts::new(module, smallest as u32);
    let mut cells = 0;
    let mut globals = HashMap::new();
    let mut shared = vec![Shared::read_only("parameters".into(), bound.immediates)];
    let mut indices = HashMap::new();
    for (binding, buffer) in bound.buffers {
        indices.insert(binding, shared.len());
        shared.push(buffer);
    }
    for (handle, variable) in module.global_variables.iter() {
        let place = match (variable.space, &variable.binding) {
            (AddressSpace::Storage { .. }, Some(binding)) => {
                let index = indices.get(&binding.binding);
                let index =
                    index.ok_or_else(|| format!("{}: binding {} is not bound", kernel.name(), binding.binding))?;
                (Root::Shared(*index, 0), Memory::Buffer)
            }
            (AddressSpace::Immediate, _) => (Root::Shared(0, 0), Memory::Buffer),
            (AddressSpace::WorkGroup, _) => {
                cells += layouts.of(variable.ty, Memory::Cells).size;
                let size = layouts.of(variable.ty, Memory::Cells).size;
                (Root::Shared(shared.len(), cells - size), Memory::Cells)
            }
            (space, _) => return Err(format!("{}: variables in {space:?} are not known here", kernel.name())),
        };
        globals.insert(handle, place);
    }
    let mut workgroup_cells = vec![UNDEFINED; cells as usize];
    let workgroup_memory = shared.len();
    shared.push(Shared::undefined("workgroup memory".into(), &mut workgroup_cells));
    let mut machine = Machine {
        kernel,
        module,
        lanes: kernel.lanes,
        layouts,
        shared,
        globals,
        frames: Vec::new(),
        subgroups: kernel.subgroups(),
        loops: Vec::new(),
        workgroup: [0; 3],
        grid,
        epoch: 0,
    };
    let entry = &module.entry_points[kernel.entry_point];
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                machine.workgroup = [x, y, z];
                machine.epoch = 0;
                machine.shared[workgroup_memory].forget();
                let arguments = entry.function.arguments.iter().map(|argument| machine.argument(argument)).collect();
                let info = kernel.shader.info.get_entry_point(kernel.entry_point);
                let all = Mask::all(kernel.lanes);
                machine.call(&entry.function, info, arguments, &all).map_err(|fault| {
                    let line = fault.line.unwrap_or_default();
                    format!("{}, workgroup {x}, {y}, {z}: {} ({line})", kernel.name(), fault.message)
                })?;
            }
        }
    }
    Ok(())
}

impl<'a> Machine<'a> {
    fn argument(&self, argument: &naga::FunctionArgument) -> Rc<Given> {
        Rc::new(Given::Value(match (&argument.binding, &self.module.types[argument.ty].inner) {
            (Some(Binding::BuiltIn(builtin)), _) => self.built_in(*builtin),
            (_, TypeInner::Struct { members, .. }) => {
                let of_member = |member: &naga::StructMember| match member.binding {
                    Some(Binding::BuiltIn(builtin)) => self.built_in(builtin),
                    _ => panic!("an entry point's argument that is no built-in value"),
                };
                let members: Vec<Value> = members.iter().map(of_member).collect();
                Value::concat(&members.iter().collect::<Vec<_>>())
            }
            _ => panic!("an entry point's argument that is no built-in value"),
        }))
    }

    fn built_in(&self, builtin: BuiltIn) -> Value {
        let lanes = self.lanes;
        let by_lane = |of: &dyn Fn(usize) -> usize| Value::by_lane(lanes, |lane| of(lane) as u32);
        let along_x = |x: Value, yz: [u32; 2]| Value::concat(&[&x, &Value::uniform(yz.to_vec())]);
        let [x, y, z] = self.workgroup;
        match builtin {
            BuiltIn::WorkGroupId => Value::uniform(self.workgroup.to_vec()),
            BuiltIn::NumWorkGroups => Value::uniform(self.grid.to_vec()),
            BuiltIn::WorkGroupSize => Value::uniform(vec![lanes as u32, 1, 1]),
            BuiltIn::LocalInvocationIndex => by_lane(&|lane| lane),
            BuiltIn::LocalInvocationId => along_x(by_lane(&|lane| lane), [0, 0]),
            BuiltIn::GlobalInvocationId => along_x(by_lane(&|lane| x as usize * lanes + lane), [y, z]),
            BuiltIn::NumSubgroups => Value::uniform(vec![self.subgroups.len() as u32]),
            BuiltIn::SubgroupSize => Value::uniform(vec![self.kernel.subgroup_size as u32]),
            BuiltIn::SubgroupId => by_lane(&|lane| self.seat(lane).0),
            BuiltIn::SubgroupInvocationId => by_lane(&|lane| self.seat(lane).1),
            _ => panic!("built-in value {builtin:?}"),
        }
    }

    /// The subgroup of an invocation, and its place there.
    fn seat(&self, lane: usize) -> (usize, usize) {
        let place = |members: &Rc<[usize]>| members.iter().position(|&member| member == lane);
        let mut seats = self.subgroups.iter().enumerate();
        let seat = seats.find_map(|(subgroup, members)| Some((subgroup, place(members)?)));
        seat.expect("every invocation is in a subgroup")
    }

    pub(crate) fn who(&self, lane: usize) -> Who {
        let [x, y, z] = self.workgroup;
        let workgroup = (z * self.grid[1] + y) * self.grid[0] + x;
        Who { workgroup, lane: Lane::One(lane as u32), epoch: self.epoch }
    }

    pub(crate) fn frame(&self) -> &Frame<'a> {
        self.frames.last().expect("a function is being run")
    }

    pub(crate) fn frame_mut(&mut self) -> &mut Frame<'a> {
        self.frames.last_mut().expect("a function is being run")
    }

    fn call(
        &mut self,
        function: &'a Function,
        info: &'a FunctionInfo,
        arguments: Vec<Rc<Given>>,
        mask: &Mask,
    ) -> Result<Option<Value>> {
        let lanes = self.lanes;
        let mut frame = Frame {
            function,
            info,
            arguments,
            given: vec![None; function.expressions.len()],
            locals: Vec::with_capacity(function.local_variables.len()),
            returned: None,
        };
        if let Some(result) = &function.result {
            let components = self.layouts.of(result.ty, Memory::Cells).scalars.len();
            frame.returned = Some(Value::zero(components, lanes));
        }
        self.frames.push(frame);
        for (_, variable) in function.local_variables.iter() {
            let cells = match variable.init {
                Some(init) => {
                    let given = self.evaluate(init, mask)?;
                    Value::concat(&[given.value()?, &Value::zero(0, lanes)]).data
                }
                None => vec![0; self.layouts.of(variable.ty, Memory::Cells).size as usize * lanes],
            };
            self.frame_mut().locals.push(cells);
        }
        let loops = std::mem::take(&mut self.loops);
        self.block(&function.body, mask.clone())?;
        self.loops = loops;
        Ok(self.frames.pop().expect("pushed above").returned)
    }

    /// Runs a block; the lanes that come to its end.
    fn block(&mut self, block: &'a Block, mut mask: Mask) -> Result<Mask> {
        for (statement, span) in block.span_iter() {
            if mask.is_empty() {
                break;
            }
            mask = self.statement(statement, *span, mask)?;
        }
        Ok(mask)
    }

    fn statement(&mut self, statement: &'a Statement, span: Span, mask: Mask) -> Result<Mask> {
        self.run(statement, mask).map_err(|mut fault| {
            fault.line.get_or_insert_with(|| self.kernel.shader.line(span));
            fault
        })
    }

    fn run(&mut self, statement: &'a Statement, mask: Mask) -> Result<Mask> {
        let none = Mask::none(self.lanes);
        match statement {
            Statement::Emit(range) => {
                for expression in range.clone() {
                    let span = self.frame().function.expressions.get_span(expression);
                    let given = self.compute(expression, &mask).map_err(|mut fault| {
                        fault.line.get_or_insert_with(|| self.kernel.shader.line(span));
                        fault
                    })?;
                    self.give(expression, given);
                }
            }
            Statement::Block(block) => return self.block(block, mask),
            Statement::If { condition, accept, reject } => {
                let condition = self.evaluate(*condition, &mask)?;
                let (yes, no) = (mask.where_is(condition.value()?, true), mask.where_is(condition.value()?, false));
                let yes = self.block(accept, yes)?;
                let no = self.block(reject, no)?;
                return Ok(yes.or(&no));
            }
            Statement::Loop { body, continuing, break_if } => return self.repeat(body, continuing, *break_if, mask),
            Statement::Break => {
                let exits = self.loops.last_mut().expect("`break` stands in a loop");
                exits.broke = exits.broke.or(&mask);
                return Ok(none);
            }
            Statement::Continue => {
                let exits = self.loops.last_mut().expect("`continue` stands in a loop");
                exits.continued = exits.continued.or(&mask);
                return Ok(none);
            }
            Statement::Return { value } => {
                if let Some(value) = value {
                    let given = self.evaluate(*value, &mask)?;
                    let returned = self.frame_mut().returned.as_mut().expect("the function has a result");
                    returned.merge(given.value()?, &mask);
                }
                return Ok(none);
            }
            Statement::ControlBarrier(barrier) => {
                if !mask.is_all() {
                    return Err("a barrier that some invocations of the workgroup do not come to".into());
                }
                if *barrier == Barrier::SUB_GROUP {
                    return Err("barriers of subgroups are not known here".into());
                }
                self.epoch += 1;
            }
            Statement::Store { pointer, value } => {
                let pointee = self.pointee(*pointer)?;
                let (pointer, value) = (self.evaluate(*pointer, &mask)?, self.evaluate(*value, &mask)?);
                self.store(pointer.pointer()?, &pointee, value.value()?, &mask)?;
            }
            Statement::Atomic { pointer, fun, value, result } => {
                let (pointer, value) = (self.evaluate(*pointer, &mask)?, self.evaluate(*value, &mask)?);
                let before = self.atomic(pointer.pointer()?, fun, value.value()?, &mask)?;
                if let Some(result) = result {
                    self.give(*result, Given::Value(before));
                }
            }
            Statement::Call { function, arguments, result } => {
                let given = arguments.iter().map(|&argument| self.evaluate(argument, &mask)).collect::<Result<_>>()?;
                let callee = &self.module.functions[*function];
                let returned = self.call(callee, &self.kernel.shader.info[*function], given, &mask)?;
                if let (Some(result), Some(returned)) = (result, returned) {
                    self.give(*result, Given::Value(returned));
                }
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let argument = self.evaluate(*argument, &mask)?;
                let gathered = self.gather(mode, argument.value()?, &mask)?;
                self.give(*result, Given::Value(gathered));
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let scalar = self.scalar(*argument);
                let argument = self.evaluate(*argument, &mask)?;
                let collected = self.collect(*op, *collective_op, argument.value()?, scalar, &mask)?;
                self.give(*result, Given::Value(collected));
            }
            Statement::CooperativeStore { target, data } => {
                let matrix = self.evaluate(*target, &mask)?;
                self.store_matrix(*target, matrix.value()?, data, &mask)?;
            }
            _ => return Err("a statement that is not known here".into()),
        }
        Ok(mask)
    }

    fn repeat(
        &mut self,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
        mut active: Mask,
    ) -> Result<Mask> {
        let none = Mask::none(self.lanes);
        let mut left = none.clone();
        for _ in 0..MOST_ROUNDS {
            self.loops.push(LoopExits { broke: none.clone(), continued: none.clone() });
            let through = self.block(body, active)?;
            let exits = self.loops.pop().expect("pushed above");
            left = left.or(&exits.broke);
            active = self.block(continuing, through.or(&exits.continued))?;
            if let (Some(condition), false) = (break_if, active.is_empty()) {
                let condition = self.evaluate(condition, &active)?;
                left = left.or(&active.where_is(condition.value()?, true));
                active = active.where_is(condition.value()?, false);
            }
            if active.is_empty() {
                return Ok(left);
            }
        }
        Err(format!("a loop of more than {MOST_ROUNDS} rounds").into())
    }

    fn give(&mut self, expression: Handle<Expression>, given: Given) {
        self.frame_mut().given[expression.index()] = Some(Rc::new(given));
    }

    /// What an expression gave where it was computed, or gives wherever it stands.
    pub(crate) fn evaluate(&mut self, expression: Handle<Expression>, mask: &Mask) -> Result<Rc<Given>> {
        if let Some(given) = &self.frame().given[expression.index()] {
            return Ok(given.clone());
        }
        if let Expression::FunctionArgument(index) = self.frame().function.expressions[expression] {
            return Ok(self.frame().arguments[index as usize].clone());
        }
        let given = Rc::new(self.compute(expression, mask)?);
        self.frame_mut().given[expression.index()] = Some(given.clone());
        Ok(given)
    }

    pub(crate) fn scalar(&self, expression: Handle<Expression>) -> Scalar {
        let inner = self.frame().info[expression].ty.inner_with(&self.module.types);
        inner.scalar().unwrap_or(Scalar { kind: ScalarKind::Uint, width: 4 })
    }

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
            TypeInner::ValuePointer { size, .. } => {
                let scalars = (0..size.map_or(1, |size| size as u32)).collect();
                Ok(Pointee { scalars, is_atomic: false })
            }
            _ => Err("a value where a pointer is needed".into()),
        }
    }

    pub(crate) fn load(&mut self, pointer: &Pointer, scalars: &[u32], mask: &Mask) -> Result<Value> {
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
            Root::Shared(index, start) => {
                let at = |offset: u32, scalar: u32| start.wrapping_add(offset).wrapping_add(scalar);
                if pointer.offset.is_uniform() {
                    let offset = pointer.offset.data[0];
                    let mut who = self.who(first);
                    if mask.count() > 1 {
                        who.lane = Lane::Several;
                    }
                    let shared = &mut self.shared[index];
                    let read = scalars.iter().map(|&scalar| shared.read(at(offset, scalar), who));
                    let data = read.collect::<std::result::Result<Vec<_>, String>>()?;
                    return Ok(Value::uniform(data));
                }
                let mut value = Value::zero(scalars.len(), self.lanes);
                for (component, &scalar) in scalars.iter().enumerate() {
                    for lane in mask.iter() {
                        let who = self.who(lane);
                        let bits = self.shared[index].read(at(pointer.offset.data[lane], scalar), who)?;
                        value.data[component * self.lanes + lane] = bits;
                    }
                }
                Ok(value)
            }
        }
    }

    fn store(&mut self, pointer: &Pointer, pointee: &Pointee, value: &Value, mask: &Mask) -> Result<()> {
        for (component, &scalar) in pointee.scalars.iter().enumerate() {
            for lane in mask.iter() {
                let (offset, bits) = (pointer.offset.get(0, lane).wrapping_add(scalar), value.get(component, lane));
                match pointer.root {
                    Root::Local(depth, variable) => {
                        let at = offset as usize * self.lanes + lane;
                        let cells = &mut self.frames[depth].locals[variable];
                        *cells.get_mut(at).ok_or("beyond a variable's end")? = bits;
                    }
                    Root::Shared(index, start) => {
                        let (at, who) = (start.wrapping_add(offset), self.who(lane));
                        match pointee.is_atomic {
                            true => self.shared[index].update(at, who, |_| bits).map(drop)?,
                            false => self.shared[index].write(at, who, bits)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn atomic(&mut self, pointer: &Pointer, fun: &AtomicFunction, value: &Value, mask: &Mask) -> Result<Value> {
        let Root::Shared(index, start) = pointer.root else {
            return Err("an atomic variable of one invocation".into());
        };
        let mut before = Value::zero(1, self.lanes);
        for lane in mask.iter() {
            let (at, bits, who) = (start + pointer.offset.get(0, lane), value.get(0, lane), self.who(lane));
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
