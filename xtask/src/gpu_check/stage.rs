//! One step of the check: a command under its own time limit.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A command, and what must be there for it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Unique; its log and its JSON bear it.
    pub name: String,
    /// Why it cannot run here, if it cannot.
    pub absent: Option<String>,
    /// The program and its arguments, from the folder.
    pub command: Vec<String>,
    /// It is stopped after so long.
    pub limit: Duration,
    /// Whether it writes `results/NAME.json`.
    pub writes_json: bool,
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Passed,
    /// It failed, with the last line that it printed.
    Failed(String),
    /// It was stopped at its limit.
    TimedOut,
    /// What it needs is not there: neither passed nor failed.
    Absent(String),
    /// The time of the whole check was over before its turn.
    NoTime,
}

impl Outcome {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::TimedOut => "TIMED OUT",
            Self::Absent(_) => "absent",
            Self::NoTime => "no time",
        }
    }

    /// What there is to say about it.
    pub fn reason(&self) -> &str {
        match self {
            Self::Failed(reason) | Self::Absent(reason) => reason,
            Self::Passed | Self::TimedOut | Self::NoTime => "",
        }
    }
}

/// The exit code by which a script says that what it needs is not there.
const ABSENT_CODE: i32 = 3;
const POLL: Duration = Duration::from_millis(20);

/// Runs a stage in `folder`, its output into a log, for no longer than `left`.
pub fn run(stage: &Stage, folder: &Path, left: Duration) -> Result<(Outcome, Duration)> {
    if let Some(reason) = &stage.absent {
        return Ok((Outcome::Absent(reason.clone()), Duration::ZERO));
    }
    if left.is_zero() {
        return Ok((Outcome::NoTime, Duration::ZERO));
    }
    let log_path = folder.join("results").join(format!("{}.log", stage.name));
    let log = File::create(&log_path).with_context(|| format!("writing {}", log_path.display()))?;
    let start = Instant::now();
    let mut command = Command::new(&stage.command[0]);
    command.args(&stage.command[1..]).current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok((Outcome::Failed(format!("{}: {error}", stage.command[0])), start.elapsed())),
    };
    let limit = stage.limit.min(left);
    loop {
        if let Some(status) = child.try_wait()? {
            let outcome = match status.code() {
                Some(0) => Outcome::Passed,
                Some(ABSENT_CODE) => Outcome::Absent(last_line(&log_path)),
                _ => Outcome::Failed(format!("{status}: {}", last_line(&log_path))),
            };
            return Ok((outcome, start.elapsed()));
        }
        if start.elapsed() > limit {
            // It may just have ended by itself.
            let _ = child.kill();
            child.wait()?;
            return Ok((Outcome::TimedOut, start.elapsed()));
        }
        thread::sleep(POLL);
    }
}

fn last_line(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(script: &str, limit: Duration, left: Duration) -> Outcome {
        let folder = std::env::temp_dir().join(format!("bindery-stage-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("results")).unwrap();
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let stage = Stage { name: format!("{limit:?}"), absent: None, command, limit, writes_json: false };
        run(&stage, &folder, left).unwrap().0
    }

    #[test]
    fn a_stage_ends_as_its_command_does() {
        let long = Duration::from_secs(60);
        assert_eq!(outcome("true", long, long), Outcome::Passed);
        assert_eq!(outcome("echo no torch; exit 3", long, long), Outcome::Absent("no torch".to_owned()));
        assert!(matches!(outcome("echo why; exit 1", long, long), Outcome::Failed(why) if why.ends_with("why")));
        assert_eq!(outcome("true", long, Duration::ZERO), Outcome::NoTime);
    }

    #[test]
    fn a_stage_is_stopped_at_its_limit() {
        assert_eq!(outcome("exec sleep 60", Duration::from_millis(1), Duration::from_secs(60)), Outcome::TimedOut);
    }
}
