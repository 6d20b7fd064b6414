//! Flags about the sampling parameters that requests leave out, with vLLM's names.

use anyhow::{Context as _, Result};
use bindery::llm::Llm;
use bindery::model::GenerationConfig;
use bindery::sampling::{ParamCaps, SamplingParams};
use clap::{Args, ValueEnum};

/// Where they come from.
#[derive(Debug, Args)]
pub(super) struct GenerationArgs {
    /// Sampling parameters of requests that leave them out: auto for what the model's authors recommend
    /// (generation_config.json), vllm for OpenAI's defaults (temperature 1, nothing cut off)
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    generation_config: GenerationSource,

    /// Parameters that go before these, as JSON: temperature, top_p, top_k, min_p, repetition_penalty
    #[arg(long, value_name = "JSON", value_parser = generation_config)]
    override_generation_config: Option<GenerationConfig>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GenerationSource {
    Auto,
    Vllm,
}

impl GenerationArgs {
    /// The parameters for requests to this model.
    ///
    /// # Errors
    /// When one of them is out of its range.
    pub(super) fn params(&self, llm: &Llm) -> Result<SamplingParams> {
        let recommended = match self.generation_config {
            GenerationSource::Auto => llm.model_config().generation,
            GenerationSource::Vllm => GenerationConfig::default(),
        };
        let overrides = self.override_generation_config.unwrap_or_default();
        llm.default_params(&overrides).context("--override-generation-config")?;
        llm.default_params(&overrides.or(recommended))
            .context("what the model's files recommend, which --generation-config vllm leaves out")
    }
}

/// Checked as far as it can be without a model.
fn generation_config(json: &str) -> Result<GenerationConfig, String> {
    let config: GenerationConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
    config.params().validate(usize::MAX, &ParamCaps::default()).map_err(|error| error.to_string())?;
    Ok(config)
}
