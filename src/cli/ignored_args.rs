//! Flags of `vllm serve` that change nothing here.

use clap::Args;

/// Start-up scripts written for vLLM carry them, and work unchanged since they are taken. What they ask for is so
/// anyway: tools are called in the model's own format, no request is logged unless --enable-log-requests asks, no code
/// comes with a model, there is no graph capture to turn off, and a server uses one device. Help does not show them.
#[derive(Debug, Args)]
pub(super) struct IgnoredArgs {
    #[arg(long, hide = true)]
    enable_auto_tool_choice: bool,

    #[arg(long, hide = true)]
    tool_call_parser: Option<String>,

    #[arg(long, hide = true)]
    enforce_eager: bool,

    #[arg(long, hide = true, conflicts_with = "enable_log_requests")]
    disable_log_requests: bool,

    #[arg(long, hide = true)]
    trust_remote_code: bool,

    #[arg(long, hide = true, value_name = "N", value_parser = one_device)]
    tensor_parallel_size: Option<u32>,

    #[arg(long, hide = true, value_name = "N", value_parser = one_device)]
    pipeline_parallel_size: Option<u32>,

    #[arg(long, hide = true, value_name = "N", value_parser = one_device)]
    data_parallel_size: Option<u32>,
}

fn one_device(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        _ => Err("one server uses one device: start one per GPU behind a router (README, Serving)".to_owned()),
    }
}

impl IgnoredArgs {
    /// A line that names those that were given, if any were.
    pub(super) fn warning(&self) -> Option<String> {
        let flags = [
            (self.enable_auto_tool_choice, "--enable-auto-tool-choice"),
            (self.tool_call_parser.is_some(), "--tool-call-parser"),
            (self.enforce_eager, "--enforce-eager"),
            (self.disable_log_requests, "--disable-log-requests"),
            (self.trust_remote_code, "--trust-remote-code"),
            (self.tensor_parallel_size.is_some(), "--tensor-parallel-size"),
            (self.pipeline_parallel_size.is_some(), "--pipeline-parallel-size"),
            (self.data_parallel_size.is_some(), "--data-parallel-size"),
        ];
        let given: Vec<&str> = flags.into_iter().filter_map(|(is_given, flag)| is_given.then_some(flag)).collect();
        (!given.is_empty()).then(|| format!("{}: nothing to do here, ignored", given.join(", ")))
    }
}
