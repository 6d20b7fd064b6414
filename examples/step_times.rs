//! Host time of a decode step, by its parts, for 1 to 64 sequences: medians of 20 steps, in microseconds.
//!
//! `cargo run --release --example step_times -- [MODEL] [DEVICE] [TEMPERATURE]`

use bindery::llm::{Event, HostTimes, Llm, LlmOptions};
use bindery::sampling::SamplingParams;
use std::time::Duration;

/// As in the `bindery` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEPS: usize = 20;

/// A part of a step, and where it stands in its times.
type Part = (&'static str, fn(&HostTimes) -> Duration);

const PARTS: [Part; 6] = [
    ("schedule", |times| times.schedule),
    ("encode", |times| times.encode),
    ("sample", |times| times.sample),
    ("update", |times| times.update),
    ("busy", HostTimes::busy),
    ("wait", |times| times.wait),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or_else(|| "models/SmolLM2-135M-Instruct.Q4_1.gguf".to_owned());
    let mut options = LlmOptions::new(model);
    options.device = args.next();
    options.max_model_len = Some(128);
    let temperature = args.next().map_or(Ok(1.0), |arg| arg.parse())?;
    let mut llm = Llm::load(&options, &mut |_| {})?;
    println!("{}, temperature {temperature}", llm.device_description());
    print!("{:>9}", "sequences");
    PARTS.iter().for_each(|(name, _)| print!("{name:>10}"));
    println!();
    for seqs in [1, 4, 16, 64] {
        let times = decode(&mut llm, seqs, temperature)?;
        print!("{seqs:>9}");
        for (_, part) in PARTS {
            let mut micros: Vec<f64> = times.iter().map(|times| part(times).as_secs_f64() * 1e6).collect();
            micros.sort_by(f64::total_cmp);
            print!("{:>10.0}", micros[micros.len() / 2]);
        }
        println!();
    }
    Ok(())
}

/// The times of steps in which so many sequences decode.
fn decode(llm: &mut Llm, seqs: u32, temperature: f32) -> Result<Vec<HostTimes>, Box<dyn std::error::Error>> {
    let params = SamplingParams {
        temperature,
        ignore_eos: true,
        max_tokens: Some(STEPS as u32 + 4),
        ..SamplingParams::default()
    };
    for seq in 0..seqs {
        llm.add((0..8).map(|at| 100 + seq * 8 + at).collect(), params.clone())?;
    }
    let mut times = Vec::new();
    let mut events = Vec::new();
    while llm.step(&mut events)? {
        let tokens = events.drain(..).filter(|event| matches!(event, Event::Token(_))).count();
        // The first steps are prompts, and decodes that make arrays grow.
        if tokens == seqs as usize && llm.scheduler().batch().token_ids.len() == tokens {
            times.push(llm.step_times());
        }
    }
    Ok(times.split_off(2))
}
