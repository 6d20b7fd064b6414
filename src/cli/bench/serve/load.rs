//! What is sent, and when.

use super::{Lengths, ServeArgs};
use anyhow::Result;
use bindery::backend::kernel_cases::SplitMix64;
use bindery::simulate::{Length, Synthetic, preset};

/// Words that most tokenizers have whole.
const WORDS: [&str; 64] = [
    "time",
    "people",
    "way",
    "water",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
    "car",
];

/// One request to send.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Seconds after the start.
    pub(super) at: f64,
    pub(super) prompt: String,
    pub(super) output_tokens: u32,
}

/// All of them, in order of arrival.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) requests: Vec<Planned>,
}

impl Load {
    pub(super) fn new(args: &ServeArgs) -> Result<Self> {
        let (prompt, output) = match args.lengths {
            Lengths::Fixed => {
                let fixed = |tokens: u32| Length { mean: f64::from(tokens), sigma: 0.0 };
                (fixed(args.input_len), fixed(args.output_len))
            }
            Lengths::Sharegpt => preset("sharegpt").expect("it is there"),
            Lengths::Alpaca => preset("alpaca").expect("it is there"),
        };
        let synthetic = Synthetic {
            name: "bench serve".into(),
            num_requests: args.num_prompts,
            rate: args.request_rate,
            prompt,
            output,
            num_prefixes: 0,
            prefix_tokens: 0,
            prefix_share: 0.0,
            max_model_len: match args.lengths {
                Lengths::Fixed => args.input_len + args.output_len,
                _ => args.max_model_len,
            },
            seed: args.seed,
        };
        let arrivals = synthetic.generate()?.arrivals;
        let mut random = SplitMix64::from_name(&format!("bench serve {}", args.seed));
        let mut words = |count: u32| {
            let word = |_| WORDS[random.below(WORDS.len() as u32) as usize];
            (0..count).map(word).collect::<Vec<_>>().join(" ")
        };
        let prefix = words(args.prefix_len);
        let request = |(number, arrival): (usize, &bindery::simulate::Arrival)| Planned {
            at: if args.fixed_rate { number as f64 / args.request_rate } else { arrival.at },
            prompt: format!("{prefix} {}", words(arrival.prompt_tokens)).trim_start().to_owned(),
            output_tokens: arrival.output_tokens,
        };
        Ok(Self { requests: arrivals.iter().enumerate().map(request).collect() })
    }
}
