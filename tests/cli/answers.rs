//! `bindery run` and `bindery chat`, and what help says.

use super::{DEVICE, QUESTION, bindery, run, run_with_input, stdout_of, temporary};
use serde_json::Value;
use std::io::Read;
use std::process::Command;

#[test]
fn help_teaches() {
    for command in ["run", "run-batch", "devices", "selftest", "bench"] {
        let help = stdout_of(&run(&[command, "--help"]));
        assert!(help.contains("Examples:") && help.contains(&format!("bindery {command}")), "{help}");
    }
    assert!(stdout_of(&run(&["--version"])).starts_with("bindery "));
}

#[test]
fn help_fills_the_terminal() {
    for command in [&["devices"][..], &["run"], &["serve"], &["simulate"], &["bench"], &["bench", "serve"]] {
        for columns in [80, 100] {
            let output = bindery(&[command, &["--help"]].concat()).env("COLUMNS", columns.to_string()).output();
            let help = stdout_of(&output.expect("the command starts"));
            assert!(help.lines().all(|line| line.chars().count() <= columns), "{help}");
            let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
            for (line, next) in help.lines().zip(help.lines().skip(1)).filter(|(a, b)| is_prose(a) && is_prose(b)) {
                let word = next.split(' ').next().unwrap_or_default();
                assert!(line.len() + 1 + word.len() > columns, "ragged at {columns} columns: {line:?}");
            }
        }
    }
}

#[test]
fn chat_takes_the_model_as_an_argument_and_answers_once() {
    let help = stdout_of(&run(&["chat", "--help"]));
    assert!(help.contains("Arguments:\n  [MODEL]") && help.contains("\nSampling:\n"), "{help}");
    assert!(!help.contains("-n <N>"), "{help}");
    let help = stdout_of(&run(&["run", "--help"]));
    let sampling = help.split("\n\n").find(|part| part.starts_with("Sampling:")).expect("a heading");
    assert!(sampling.contains("-n <N>"), "{sampling}");
}

#[test]
fn run_answers_on_stdout_and_says_nothing_else() {
    let output = run(&[&["run"], &DEVICE[..], &[QUESTION]].concat());
    assert_eq!(stdout_of(&output), "The capital of France is Paris.\n");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let verbose =
        run_with_input(&[&["run", "--verbose", "--stop", " is"], &DEVICE[..]].concat(), &format!("{QUESTION}\n"));
    assert_eq!(stdout_of(&verbose), "The capital of France\n");
    let stderr = String::from_utf8_lossy(&verbose.stderr);
    assert!(["llvmpipe", "KV pool", "TTFT", "\" is\""].iter().all(|word| stderr.contains(word)), "{stderr}");
}

#[test]
fn several_completions_have_headers() {
    let args =
        ["run", "--raw", "--temperature", "1", "-n", "2", "--max-tokens", "4", "--dtype", "float16", "The sky is"];
    let text = stdout_of(&run(&[&args[..], &DEVICE[..]].concat()));
    assert!(text.starts_with("--- completion 0 ---\n") && text.contains("\n--- completion 1 ---\n"), "{text}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_answer() {
    let args = ["run", "--raw", "--ignore-eos", "--max-tokens", "4000", "Once upon a time"];
    let mut child = bindery(&[&args[..], &DEVICE[..]].concat()).spawn().expect("the command starts");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("the answer begins");
    let kill = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status().expect("sh is there");
    assert!(kill.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.ends_with(b"\n") && output.stderr.is_empty());
}

#[test]
fn a_conversation_is_remembered_and_its_commands_obeyed() {
    let saved = temporary("chat.json", b"");
    let input = format!(
        "My name is\\\nAda.\n/stats\n/undo\n/nosuch\n/set temperature hot\n{QUESTION}\n/save {}\n/quit\nnever read\n",
        saved.display()
    );
    let history = temporary("history", b"typed before\n");
    let args = ["chat", "--max-tokens", "12", "--max-model-len", "256", "--history-file"];
    let output = run_with_input(&[&args[..], &[history.to_str().expect("UTF-8")], &DEVICE[..]].concat(), &input);
    let answers = stdout_of(&output);
    assert!(answers.contains("The capital of France is Paris."), "{answers}");
    let said = String::from_utf8_lossy(&output.stderr);
    for word in ["completion tokens", "/nosuch: there is no such command", "\"hot\" is no number", "2 messages in"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let messages: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&saved).expect("saved")).expect("JSON");
    assert_eq!(messages.iter().map(|m| m["role"].as_str().expect("a role")).collect::<Vec<_>>(), ["user", "assistant"]);
    assert_eq!(messages[0]["content"], QUESTION);
    let typed = std::fs::read_to_string(&history).expect("kept");
    assert!(typed.contains("typed before\n") && typed.contains(QUESTION), "{typed}");
}
