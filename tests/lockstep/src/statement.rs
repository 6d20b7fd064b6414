//! Runs statements.

use super::machine::{Given, LoopExits, Machine, Result};
use super::value::Mask;
use naga::{Barrier, Block, Expression, Handle, Span, Statement};

/// Rounds of one loop, beyond which it is taken to have no end.
const MOST_ROUNDS: u32 = 1 << 22;

impl<'a> Machine<'a> {
    /// Runs a block; the lanes that come to its end.
    pub(crate) fn block(&mut self, block: &'a Block, mut mask: Mask) -> Result<Mask> {
        for (statement, span) in block.span_iter() {
            if mask.is_empty() {
                break;
            }
            mask = self.statement(statement, *span, mask)?;
        }
        Ok(mask)
    }

    fn statement(&mut self, statement: &'a Statement, span: Span, mask: Mask) -> Result<Mask> {
        self.at = span;
        self.run(statement, mask).map_err(|mut fault| {
            fault.line.get_or_insert_with(|| self.kernel.shader.line(span));
            fault
        })
    }

    fn run(&mut self, statement: &'a Statement, mask: Mask) -> Result<Mask> {
        match statement {
            Statement::Emit(range) => {
                for expression in range.clone() {
                    self.at = self.frame().function.expressions.get_span(expression);
                    let given = self.compute(expression, &mask).map_err(|mut fault| {
                        fault.line.get_or_insert_with(|| self.kernel.shader.line(self.at));
                        fault
                    })?;
                    self.count_expression(expression, &given, &mask);
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
                return Ok(Mask::none(self.lanes));
            }
            Statement::Continue => {
                let exits = self.loops.last_mut().expect("`continue` stands in a loop");
                exits.continued = exits.continued.or(&mask);
                return Ok(Mask::none(self.lanes));
            }
            Statement::Return { value } => {
                if let Some(value) = value {
                    let given = self.evaluate(*value, &mask)?;
                    let returned = self.frame_mut().returned.as_mut().expect("the function has a result");
                    returned.merge(given.value()?, &mask);
                }
                return Ok(Mask::none(self.lanes));
            }
            Statement::ControlBarrier(barrier) => self.barrier(*barrier, &mask)?,
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
            _ => self.run_together(statement, &mask)?,
        }
        Ok(mask)
    }

    fn barrier(&mut self, barrier: Barrier, mask: &Mask) -> Result<()> {
        if !mask.is_all() {
            return Err("a barrier that some invocations of the workgroup do not come to".into());
        }
        if barrier.intersects(Barrier::SUB_GROUP | Barrier::TEXTURE) {
            return Err("barriers of subgroups and for textures are not known here".into());
        }
        self.epochs.workgroup_memory += u32::from(barrier.contains(Barrier::WORK_GROUP));
        self.epochs.buffers += u32::from(barrier.contains(Barrier::STORAGE));
        Ok(())
    }

    /// What the invocations of a subgroup do together.
    fn run_together(&mut self, statement: &'a Statement, mask: &Mask) -> Result<()> {
        match statement {
            Statement::SubgroupGather { mode, argument, result } => {
                let argument = self.evaluate(*argument, mask)?;
                let gathered = self.gather(mode, argument.value()?, mask)?;
                self.count_exchanges(gathered.components(), 1, mask);
                self.give(*result, Given::Value(gathered));
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let scalar = self.scalar(*argument);
                let argument = self.evaluate(*argument, mask)?;
                let collected = self.collect(*op, *collective_op, argument.value()?, scalar, mask)?;
                self.count_exchanges(collected.components(), self.kernel.subgroup_size.ilog2(), mask);
                self.give(*result, Given::Value(collected));
            }
            Statement::CooperativeStore { target, data } => {
                let matrix = self.evaluate(*target, mask)?;
                self.store_matrix(*target, matrix.value()?, data, mask)?;
            }
            _ => return Err("a statement that is not known here".into()),
        }
        Ok(())
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
}
