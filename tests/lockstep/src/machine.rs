//! Runs a kernel: all invocations of a workgroup side by side, statement by statement, workgroup after workgroup.
//!
//! Invocations that went another way wait, so that those of a workgroup are together again after every branch and loop. A
//! barrier that not all of them come to is a fault, and so is an operation of a subgroup that some of its invocations are
//! not part of.

use super::counter::Counter;
use super::kernel::Kernel;
use super::layout::{Layouts, Memory};
use super::shared::{Lane, Shared, Who};
use super::value::{Mask, Value};
use naga::valid::FunctionInfo;
use naga::{
    AddressSpace, Binding, BuiltIn, Expression, Function, GlobalVariable, Handle, Module, Scalar, ScalarKind, Span,
    TypeInner,
};
use std::collections::HashMap;
use std::rc::Rc;

/// What workgroup memory holds before anybody writes.
const UNDEFINED: u32 = 0x7fc0_dead;

/// Why a kernel cannot go on, and the line where.
#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    pub(crate) line: Option<String>,
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
    /// Index into [`Machine::shared`].
    Shared(usize),
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
    pub(crate) is_atomic: bool,
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
    pub(crate) returned: Option<Value>,
}

/// Where lanes have gone that left a loop's body.
pub(crate) struct LoopExits {
    pub(crate) broke: Mask,
    pub(crate) continued: Mask,
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
    pub(crate) loops: Vec<LoopExits>,
    workgroup: [u32; 3],
    pub(crate) grid: [u32; 3],
    pub(crate) epochs: Epochs,
    /// What is being run, as far as it has a place of its own in the source.
    pub(crate) at: Span,
    pub(crate) counter: Option<Counter>,
}

/// Barriers that the workgroup has passed, by the memory that they order.
#[derive(Default)]
pub(crate) struct Epochs {
    pub(crate) workgroup_memory: u32,
    pub(crate) buffers: u32,
}

/// What a dispatch binds: buffers by binding, and the parameters' words.
pub(crate) struct Bound<'a> {
    pub(crate) buffers: Vec<(u32, Shared<'a>)>,
    pub(crate) immediates: &'a [u32],
}

/// Runs a kernel for every workgroup of a grid.
pub(crate) fn dispatch(kernel: &Kernel, bound: Bound<'_>, grid: [u32; 3]) -> std::result::Result<(), String> {
    let module = &kernel.shader.module;
    let layouts = Layouts::new(module, kernel);
    let mut globals = HashMap::new();
    let mut shared = vec![Shared::constant("parameters".into(), bound.immediates)];
    let mut indices = HashMap::new();
    for (binding, buffer) in bound.buffers {
        indices.insert(binding, shared.len());
        shared.push(buffer);
    }
    let variables = || module.global_variables.iter();
    let of_workgroup = variables().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    let cells_of = |ty| vec![UNDEFINED; layouts.of(ty, Memory::Cells).size as usize];
    let mut cells: Vec<_> = of_workgroup.map(|(handle, variable)| (handle, cells_of(variable.ty))).collect();
    for (handle, cells) in &mut cells {
        globals.insert(*handle, (Root::Shared(shared.len()), Memory::Cells));
        let name = module.global_variables[*handle].name.clone().unwrap_or_default();
        let is_of_halves = |ty| module.types[ty].inner.scalar_width() == Some(2);
        let cells_per_word = match module.types[module.global_variables[*handle].ty].inner {
            TypeInner::Array { base, .. } if is_of_halves(base) => 2,
            _ => 1,
        };
        shared.push(Shared::of_workgroup(name, cells, cells_per_word));
    }
    for (handle, variable) in variables() {
        let index = match (variable.space, &variable.binding) {
            (AddressSpace::WorkGroup, _) => continue,
            (AddressSpace::Immediate, _) => 0,
            (AddressSpace::Storage { .. }, Some(binding)) => *indices
                .get(&binding.binding)
                .ok_or_else(|| format!("{}: binding {} is not bound", kernel.name(), binding.binding))?,
            (space, _) => return Err(format!("{}: variables in {space:?} are not known here", kernel.name())),
        };
        globals.insert(handle, (Root::Shared(index), Memory::Buffer));
    }
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
        epochs: Epochs::default(),
        at: Span::UNDEFINED,
        counter: kernel.meter.as_ref().map(|_| Counter::default()),
    };
    let entry = &module.entry_points[kernel.entry_point];
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                machine.workgroup = [x, y, z];
                if let Some(meter) = &kernel.meter
                    && !meter.samples(machine.workgroup_index(), grid.iter().product())
                {
                    continue;
                }
                machine.epochs = Epochs::default();
                machine.shared.iter_mut().filter(|shared| shared.is_of_workgroup).for_each(Shared::forget);
                let arguments = entry.function.arguments.iter().map(|argument| machine.argument(argument)).collect();
                let info = kernel.shader.info.get_entry_point(kernel.entry_point);
                let all = Mask::all(kernel.lanes);
                machine.call(&entry.function, info, arguments, &all).map_err(|fault| {
                    let line = fault.line.unwrap_or_default();
                    let (name, size) = (kernel.name(), kernel.subgroup_size);
                    format!("{name}, workgroup {x}, {y}, {z}, subgroups of {size}: {} ({line})", fault.message)
                })?;
                machine.end_counted_workgroup();
            }
        }
    }
    if let Some(meter) = &kernel.meter {
        machine.end_counted_dispatch(meter);
    }
    Ok(())
}

impl<'a> Machine<'a> {
    fn workgroup_index(&self) -> u32 {
        let [x, y, z] = self.workgroup;
        (z * self.grid[1] + y) * self.grid[0] + x
    }

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
    pub(crate) fn seat(&self, lane: usize) -> (usize, usize) {
        let place = |members: &Rc<[usize]>| members.iter().position(|&member| member == lane);
        let mut seats = self.subgroups.iter().enumerate();
        let seat = seats.find_map(|(subgroup, members)| Some((subgroup, place(members)?)));
        seat.expect("every invocation is in a subgroup")
    }

    /// An invocation, before it touches some shared memory.
    pub(crate) fn who(&self, shared: usize, lane: usize) -> Who {
        let workgroup = self.workgroup_index();
        let Epochs { workgroup_memory, buffers } = self.epochs;
        let epoch = if self.shared[shared].is_of_workgroup { workgroup_memory } else { buffers };
        Who { workgroup, lane: Lane::One(lane as u32), epoch }
    }

    pub(crate) fn frame(&self) -> &Frame<'a> {
        self.frames.last().expect("a function is being run")
    }

    pub(crate) fn frame_mut(&mut self) -> &mut Frame<'a> {
        self.frames.last_mut().expect("a function is being run")
    }

    pub(crate) fn call(
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

    pub(crate) fn give(&mut self, expression: Handle<Expression>, given: Given) {
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
}
