//! Synthetic requests: when they arrive, how long they are, what they share.

use thiserror::Error;

use super::random::{Random, Stream};

/// One request, as lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// When it arrives, in units of the workload's [`Clock`].
    pub at: f64,
    /// Tokens of the prompt, the shared prefix included.
    pub prompt_tokens: u32,
    /// Tokens of each completion; always reached.
    pub output_tokens: u32,
    /// Which of [`Workload::prefixes`] the prompt starts with.
    pub prefix: Option<u32>,
}

/// What arrival times count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Seconds, as the cost model counts them.
    Seconds,
    /// Steps of the scheduler, each as long as the other.
    Steps,
}

/// Requests in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// What it is, in a few words.
    pub name: String,
    /// What arrival times count.
    pub clock: Clock,
    /// Tokens of each shared prefix.
    pub prefixes: Vec<u32>,
    /// The requests.
    pub arrivals: Vec<Arrival>,
}

/// A log-normal length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Length {
    /// Mean, in tokens.
    pub mean: f64,
    /// Standard deviation of the logarithm; 0 for always the mean.
    pub sigma: f64,
}

/// What a synthetic workload is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    /// A name for it.
    pub name: String,
    /// Requests.
    pub num_requests: u32,
    /// Arrivals in a second, Poisson; infinite for all at once.
    pub rate: f64,
    /// Prompt lengths, without shared prefixes.
    pub prompt: Length,
    /// Output lengths.
    pub output: Length,
    /// Shared prefixes to choose from.
    pub num_prefixes: u32,
    /// Tokens of each.
    pub prefix_tokens: u32,
    /// Share of the requests that start with one.
    pub prefix_share: f64,
    /// Tokens of a request at most, prompt and completion: longer ones are cut.
    pub max_model_len: u32,
    /// Seed.
    pub seed: u64,
}

/// Lengths of a published data set. The paper prints means only; the spreads are ours: for ShareGPT they are such that
/// a request holds 497 tokens on average while it runs, which is what 30.42 requests in 15,700 slots held there
/// (figure 13a and table 1 of arXiv 2309.06180).
pub fn preset(name: &str) -> Option<(Length, Length)> {
    match name {
        "sharegpt" => Some((Length { mean: 161.0, sigma: 1.0 }, Length { mean: 338.0, sigma: 0.83 })),
        "alpaca" => Some((Length { mean: 19.0, sigma: 0.5 }, Length { mean: 58.0, sigma: 0.9 })),
        _ => None,
    }
}

/// A value that no workload can be made from.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{name} is {value}: it must be {range}")]
pub struct OutOfRange {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// What it may be.
    pub range: &'static str,
}

/// Requests in one workload at most: their lengths are kept in memory.
pub const MAX_REQUESTS: u32 = 10_000_000;

impl Synthetic {
    /// Says which value makes no sense.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let length = |value: f64| (1.0..=1e6).contains(&value);
        let sigma = |value: f64| (0.0..=4.0).contains(&value);
        let checks = [
            ("num-requests", f64::from(self.num_requests), "1 to 10 million", {
                (1..=MAX_REQUESTS).contains(&self.num_requests)
            }),
            ("rate", self.rate, "above 0 (inf for all requests at once)", self.rate > 1e-9),
            ("input-len", self.prompt.mean, "1 to 1000000 tokens", length(self.prompt.mean)),
            ("output-len", self.output.mean, "1 to 1000000 tokens", length(self.output.mean)),
            ("input-sigma", self.prompt.sigma, "0 to 4", sigma(self.prompt.sigma)),
            ("output-sigma", self.output.sigma, "0 to 4", sigma(self.output.sigma)),
            ("prefix-share", self.prefix_share, "0 to 1", (0.0..=1.0).contains(&self.prefix_share)),
            ("num-prefixes", f64::from(self.num_prefixes), "at most 1000000", self.num_prefixes <= 1_000_000),
            ("max-model-len", f64::from(self.max_model_len), "at least 2", self.max_model_len >= 2),
            ("prefix-len", f64::from(self.prefix_tokens), "below half of max-model-len", {
                self.num_prefixes == 0 || self.prefix_tokens < self.max_model_len.div_ceil(2)
            }),
        ];
        match checks.into_iter().find(|check| !check.3) {
            Some((name, value, range, _)) => Err(OutOfRange { name, value, range }),
            None => Ok(()),
        }
    }

    /// The requests: a function of the values alone.
    pub fn generate(&self) -> Result<Workload, OutOfRange> {
        self.check()?;
        let random = Random::new(self.seed);
        let mut now = 0.0;
        let mut arrival = |i: u32| {
            let counter = u64::from(i);
            if self.rate.is_finite() {
                now += random.exponential(Stream::Arrival, counter) / self.rate;
            }
            let shares = self.num_prefixes > 0 && random.uniform(Stream::Prefix, 2 * counter) < self.prefix_share;
            let prefix = shares.then(|| random.below(Stream::Prefix, 2 * counter + 1, self.num_prefixes));
            let shared = if shares { self.prefix_tokens } else { 0 };
            let draw = |stream, length: Length| {
                let tokens = random.log_normal(stream, counter, length.mean, length.sigma);
                tokens.round().max(1.0) as u32
            };
            // A prompt leaves room for a completion.
            let own = draw(Stream::Prompt, self.prompt);
            let prompt_tokens = own.saturating_add(shared).min(self.max_model_len - 1);
            let output_tokens = draw(Stream::Output, self.output).min(self.max_model_len - prompt_tokens);
            Arrival { at: now, prompt_tokens, output_tokens, prefix }
        };
        Ok(Workload {
            name: self.name.clone(),
            clock: Clock::Seconds,
            prefixes: vec![self.prefix_tokens; self.num_prefixes as usize],
            arrivals: (0..self.num_requests).map(&mut arrival).collect(),
        })
    }
}

impl Workload {
    /// Mean tokens of prompts and of completions.
    pub fn mean_lengths(&self) -> (f64, f64) {
        let count = self.arrivals.len().max(1) as f64;
        let sum = |of: fn(&Arrival) -> u32| self.arrivals.iter().map(|arrival| f64::from(of(arrival))).sum::<f64>();
        (sum(|arrival| arrival.prompt_tokens) / count, sum(|arrival| arrival.output_tokens) / count)
    }

    /// The first requests of it.
    pub fn head(&self, num_requests: usize) -> Workload {
        let arrivals = self.arrivals.iter().take(num_requests).copied().collect();
        Workload { name: self.name.clone(), clock: self.clock, prefixes: self.prefixes.clone(), arrivals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synthetic() -> Synthetic {
        let (prompt, output) = preset("sharegpt").expect("a preset");
        Synthetic {
            name: "test".into(),
            num_requests: 20_000,
            rate: 4.0,
            prompt,
            output,
            num_prefixes: 3,
            prefix_tokens: 50,
            prefix_share: 0.5,
            max_model_len: 2048,
            seed: 7,
        }
    }

    #[test]
    fn a_seed_gives_one_workload() {
        let one = synthetic().generate().expect("sound");
        assert_eq!(one, synthetic().generate().expect("sound"));
        assert_ne!(one, Synthetic { seed: 8, ..synthetic() }.generate().expect("sound"));
        assert!(one.arrivals.is_sorted_by(|a, b| a.at <= b.at));
        let seconds = one.arrivals.last().expect("requests").at;
        assert!((seconds / 5000.0 - 1.0).abs() < 0.03, "{seconds}");
        assert!(one.arrivals.iter().all(|request| request.prompt_tokens + request.output_tokens <= 2048));
        let sharing = one.arrivals.iter().filter(|request| request.prefix.is_some()).count();
        assert!((9_600..10_400).contains(&sharing), "{sharing}");
    }

    #[test]
    fn senseless_values_are_named() {
        let refused = |synthetic: Synthetic| synthetic.generate().expect_err("senseless").name;
        let nan = Length { mean: f64::NAN, sigma: 0.0 };
        assert_eq!(refused(Synthetic { rate: -1.0, ..synthetic() }), "rate");
        assert_eq!(refused(Synthetic { rate: f64::NAN, ..synthetic() }), "rate");
        assert_eq!(refused(Synthetic { prompt: nan, ..synthetic() }), "input-len");
        assert_eq!(refused(Synthetic { num_requests: 0, ..synthetic() }), "num-requests");
        assert_eq!(refused(Synthetic { num_requests: u32::MAX, ..synthetic() }), "num-requests");
        assert_eq!(refused(Synthetic { prefix_share: 1.5, ..synthetic() }), "prefix-share");
        assert_eq!(refused(Synthetic { prefix_tokens: 2000, ..synthetic() }), "prefix-len");
        let sigma = Length { mean: 10.0, sigma: f64::INFINITY };
        assert_eq!(refused(Synthetic { output: sigma, ..synthetic() }), "output-sigma");
    }
}
