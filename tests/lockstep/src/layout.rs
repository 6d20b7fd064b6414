//! Where the scalars of a type stand in memory.

use super::kernel::Kernel;
use naga::{ArraySize, Handle, Module, Type, TypeInner};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Who decides how a type lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Memory {
    /// WGSL's rules for buffers, in words of four bytes.
    Buffer,
    /// Workgroup memory and variables, which nobody else sees: a cell for each scalar, one after the other.
    Cells,
}

/// A type in memory.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Words or cells.
    pub(crate) size: u32,
    /// Of each scalar, from the start.
    pub(crate) scalars: Vec<u32>,
}

impl Layout {
    fn in_a_row(scalars: u32) -> Self {
        Self { size: scalars, scalars: (0..scalars).collect() }
    }
}

type Known = HashMap<(Handle<Type>, Memory), Rc<Layout>>;

/// The layouts of a module's types.
pub(crate) struct Layouts<'a> {
    module: &'a Module,
    /// Invocations of the smallest subgroup.
    smallest_subgroup: usize,
    known: RefCell<Known>,
}

impl<'a> Layouts<'a> {
    pub(crate) fn new(module: &'a Module, kernel: &Kernel) -> Self {
        let smallest_subgroup = kernel.subgroups().iter().map(|lanes| lanes.len()).min().unwrap_or(1);
        Self { module, smallest_subgroup, known: RefCell::default() }
    }

    /// Scalars that each lane of a subgroup has of a cooperative matrix of so many elements.
    pub(crate) fn matrix_scalars(&self, elements: usize) -> usize {
        elements.div_ceil(self.smallest_subgroup)
    }

    pub(crate) fn of(&self, ty: Handle<Type>, memory: Memory) -> Rc<Layout> {
        if let Some(known) = self.known.borrow().get(&(ty, memory)) {
            return known.clone();
        }
        let layout = Rc::new(self.of_inner(&self.module.types[ty].inner, memory));
        self.known.borrow_mut().insert((ty, memory), layout.clone());
        layout
    }

    fn of_inner(&self, inner: &TypeInner, memory: Memory) -> Layout {
        match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) | TypeInner::Vector { scalar, .. }
                if memory == Memory::Buffer && scalar.width != 4 =>
            {
                panic!("scalars of {} bytes in a buffer: only those of 4 are known here", scalar.width)
            }
            TypeInner::Scalar(_) | TypeInner::Atomic(_) => Layout::in_a_row(1),
            TypeInner::Vector { size, .. } => Layout::in_a_row(size as u32),
            TypeInner::CooperativeMatrix { columns, rows, .. } => {
                Layout::in_a_row(self.matrix_scalars(columns as usize * rows as usize) as u32)
            }
            TypeInner::Array { base, size, .. } => {
                let (element, stride) = (self.of(base, memory), self.stride(inner, memory));
                let ArraySize::Constant(count) = size else { return Layout::default() };
                let starts = (0..count.get()).map(|index| index * stride);
                let scalars = starts.flat_map(|start| element.scalars.iter().map(move |at| start + at)).collect();
                Layout { size: count.get() * stride, scalars }
            }
            TypeInner::Struct { ref members, span } => {
                let mut layout = Layout::default();
                for (index, member) in members.iter().enumerate() {
                    let start = self.member(inner, index as u32, memory);
                    let of_member = self.of(member.ty, memory);
                    layout.scalars.extend(of_member.scalars.iter().map(|at| start + at));
                    layout.size = start + of_member.size;
                }
                if memory == Memory::Buffer {
                    layout.size = span / 4;
                }
                layout
            }
            _ => panic!("values of {inner:?} are not known here"),
        }
    }

    /// From one element of an array or vector to the next.
    pub(crate) fn stride(&self, of: &TypeInner, memory: Memory) -> u32 {
        match (of, memory) {
            (TypeInner::Array { stride, .. }, Memory::Buffer) => stride / 4,
            (TypeInner::Array { base, .. }, Memory::Cells) => self.of(*base, memory).size,
            (TypeInner::Vector { .. }, _) => 1,
            _ => panic!("{of:?} has no elements"),
        }
    }

    /// Where a struct's member, or an array's or vector's element, begins.
    pub(crate) fn member(&self, of: &TypeInner, index: u32, memory: Memory) -> u32 {
        match (of, memory) {
            (TypeInner::Struct { members, .. }, Memory::Buffer) => members[index as usize].offset / 4,
            (TypeInner::Struct { members, .. }, Memory::Cells) => {
                members[..index as usize].iter().map(|member| self.of(member.ty, memory).size).sum()
            }
            _ => index * self.stride(of, memory),
        }
    }
}
