//! Which stages there are, from what the machine has.

use std::time::Duration;

use super::machine::Machine;
use super::stage::Stage;

/// How large the stages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Everything, for a GPU.
    Full,
    /// The same stages with tiny models: to see the check itself work.
    Tiny,
}

/// A backend under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// On Vulkan.
    Vulkan,
    /// On CUDA.
    Cuda,
}

impl Backend {
    /// Both; Vulkan first.
    pub const ALL: [Self; 2] = [Self::Vulkan, Self::Cuda];

    /// As in names of stages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        }
    }

    fn flags(self, machine: &Machine) -> Vec<String> {
        let flags = match (self, &machine.vulkan) {
            (Self::Cuda, _) => vec!["--backend".to_owned(), "cuda".to_owned()],
            (Self::Vulkan, Some(index)) => vec!["--device".to_owned(), index.to_string()],
            (Self::Vulkan, None) => vec![],
        };
        flags.into_iter().collect()
    }

    fn absent(self, machine: &Machine) -> Option<String> {
        match self {
            Self::Vulkan => machine.vulkan.is_none().then(|| "no Vulkan adapter (is libvulkan1 there?)".to_owned()),
            Self::Cuda => machine.without_cuda.as_ref().map(|_| "no CUDA".to_owned()),
        }
    }
}

/// Greedy tokens of some prompts, against a golden.
#[derive(Debug, Clone, Copy)]
pub struct TokenRun {
    pub name: &'static str,
    /// The model, and what is special about the run.
    pub flags: &'static str,
    pub input: &'static str,
    pub golden: Golden,
}

/// What a run's tokens must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Golden {
    /// What the tiny model gave where the folder was packed.
    Tiny,
    /// What transformers gave for the real one.
    Oracle,
}

/// Prompts of the oracle.
pub const ORACLE_INPUT: &str = "golden/smollm2-in.jsonl";

/// The first one makes the golden of the tiny model. The second has the same prompts in a pool of so few blocks that
/// requests are preempted and come back, the third has them with drafts; the real model has its own without and with drafts.
pub const TOKEN_RUNS: [TokenRun; 5] = [
    TokenRun {
        name: "tiny",
        flags: "--load-format dummy --model models/tiny.json --max-model-len 192",
        input: "golden/tiny-in.jsonl",
        golden: Golden::Tiny,
    },
    TokenRun {
        name: "tiny-preempted",
        flags: "--load-format dummy --model models/tiny.json --max-model-len 192 --num-gpu-blocks-override 14",
        input: "golden/tiny-in.jsonl",
        golden: Golden::Tiny,
    },
    TokenRun {
        name: "tiny-drafts",
        flags: r#"--load-format dummy --model models/tiny.json --max-model-len 192 --speculative-config {"method":"ngram"}"#,
        input: "golden/tiny-in.jsonl",
        golden: Golden::Tiny,
    },
    TokenRun {
        name: "smollm2",
        flags: "--model models/SmolLM2-135M-Instruct.Q4_1.gguf --max-model-len 512",
        input: ORACLE_INPUT,
        golden: Golden::Oracle,
    },
    TokenRun {
        name: "smollm2-drafts",
        flags: r#"--model models/SmolLM2-135M-Instruct.Q4_1.gguf --max-model-len 512 --speculative-config {"method":"ngram"}"#,
        input: ORACLE_INPUT,
        golden: Golden::Oracle,
    },
];

/// Shapes of the benchmarks, larger ones later.
const SHAPES: [&str; 2] = ["llama-1b", "llama-8b"];

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split_whitespace().map(str::to_owned)
}

/// Builds stages for one machine.
pub struct Planner<'a> {
    pub machine: &'a Machine,
    pub scale: Scale,
}

impl Planner<'_> {
    /// All stages, those that matter most first: time may run out.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        for backend in Backend::ALL {
            stages.push(self.bindery(backend, &format!("selftest-{}", backend.name()), 60, "selftest", None));
        }
        // Without cooperative matrices, which are the newest of what drivers have.
        let subgroup = "selftest --variant subgroup";
        stages.push(self.bindery(Backend::Vulkan, "selftest-vulkan-subgroup", 60, subgroup, None));
        for run in TOKEN_RUNS {
            stages.extend(Backend::ALL.map(|backend| self.tokens(backend, run)));
        }
        stages.extend(Backend::ALL.map(|backend| self.kernels(backend)));
        for shape in SHAPES {
            stages.extend(Backend::ALL.map(|backend| self.latency(backend, shape, "f16")));
            stages.push(self.torch(shape));
        }
        for shape in SHAPES {
            stages.extend(Backend::ALL.map(|backend| self.latency(backend, shape, "q4_0")));
        }
        stages.extend(Backend::ALL.map(|backend| self.throughput(backend)));
        stages.push(self.compare());
        stages.extend(["async", "blocks"].map(|other| self.decode_kernels(other)));
        if self.scale == Scale::Full {
            let all = |backend: Backend| {
                self.bindery(backend, &format!("selftest-all-{}", backend.name()), 120, "selftest --all", None)
            };
            stages.extend([Backend::Cuda, Backend::Vulkan].map(all));
        }
        stages
    }

    /// A command of `bindery` on a backend; `json` is the flag that names its file.
    fn bindery(&self, backend: Backend, name: &str, limit_s: u64, command: &str, json: Option<&str>) -> Stage {
        let command = [command.to_owned(), backend.flags(self.machine).join(" ")].join(" ");
        Stage { absent: backend.absent(self.machine), ..self.command(name, limit_s, &command, json) }
    }

    /// The same with the devices in the command.
    fn command(&self, name: &str, limit_s: u64, command: &str, json: Option<&str>) -> Stage {
        let mut all: Vec<String> = std::iter::once("bin/bindery".to_owned()).chain(words(command)).collect();
        if let Some(flag) = json {
            all.extend([flag.to_owned(), format!("results/{name}.json")]);
        }
        Stage {
            name: name.to_owned(),
            absent: None,
            command: all,
            limit: self.limit(limit_s),
            writes_json: json.is_some(),
        }
    }

    /// So many seconds on a GPU. A software adapter, which compiles kernels for long, has the time of the whole check.
    fn limit(&self, seconds: u64) -> Duration {
        match self.scale {
            Scale::Full => Duration::from_secs(seconds),
            Scale::Tiny => Duration::MAX,
        }
    }

    fn tokens(&self, backend: Backend, run: TokenRun) -> Stage {
        let TokenRun { name, flags, input, golden } = run;
        let stage = format!("tokens-{name}-{}", backend.name());
        let command = format!("run-batch -i {input} -o results/{stage}.jsonl {flags}");
        let mut stage = self.bindery(backend, &stage, 60, &command, None);
        if golden == Golden::Oracle && !self.machine.has_model {
            stage.absent = Some("the model's parts are not in the folder".to_owned());
        }
        stage
    }

    fn model(&self, shape: &str, format: &str) -> String {
        let shape = if self.scale == Scale::Tiny { "tiny" } else { shape };
        let format = if format == "f16" { "dummy".to_owned() } else { format!("dummy:{format}") };
        format!("--load-format {format} --model models/{shape}.json --max-model-len 2048")
    }

    fn latency(&self, backend: Backend, shape: &str, format: &str) -> Stage {
        let lens = match self.scale {
            Scale::Full => "--input-len 512 --output-len 64 --num-iters 3",
            Scale::Tiny => "--input-len 16 --output-len 4 --num-iters 1",
        };
        let command = format!("bench latency {lens} {}", self.model(shape, format));
        let name = format!("latency-{shape}-{format}-{}", backend.name());
        self.bindery(backend, &name, if shape == "llama-8b" { 75 } else { 45 }, &command, Some("--output-json"))
    }

    fn throughput(&self, backend: Backend) -> Stage {
        let lens = match self.scale {
            Scale::Full => "--num-prompts 64 --input-len 256 --output-len 64 --num-iters 2",
            Scale::Tiny => "--num-prompts 4 --input-len 16 --output-len 4 --num-iters 1",
        };
        let command = format!("bench throughput {lens} {}", self.model("llama-1b", "f16"));
        self.bindery(backend, &format!("throughput-{}", backend.name()), 60, &command, Some("--output-json"))
    }

    fn kernels(&self, backend: Backend) -> Stage {
        let name = format!("kernels-{}", backend.name());
        let what = match self.scale {
            Scale::Full => "--shapes Llama-3.1-8B,Llama-3.2-1B --formats f16,q4_0",
            Scale::Tiny => "--kernel qkv --rows 1,8 --num-runs 3",
        };
        // Its file grows as kernels are measured: what is there when time is up stays.
        let stage = self.bindery(backend, &name, 90, &format!("bench kernels {what}"), Some("--output-json"));
        self.if_bench_has("kernels", stage)
    }

    fn compare(&self) -> Stage {
        let vulkan = self.machine.vulkan.as_ref().map_or("webgpu".to_owned(), |index| format!("webgpu:{index}"));
        let lens = match self.scale {
            Scale::Full => "--num-iters 3",
            Scale::Tiny => "--num-iters 1 --input-len 16 --output-len 4 --batch-sizes 1",
        };
        let command = format!("bench compare --a {vulkan} --b cuda {lens} {}", self.model("llama-1b", "f16"));
        let mut stage = self.command("compare", 90, &command, Some("--output-json"));
        stage.absent = Backend::ALL.into_iter().find_map(|backend| backend.absent(self.machine));
        self.if_bench_has("compare", stage)
    }

    /// Another kernel of CUDA for the attention of decodes against the one that is taken.
    fn decode_kernels(&self, other: &str) -> Stage {
        let model = self.model("llama-8b", "f16");
        let command =
            format!("bench compare --a cuda:/teams --b cuda:/{other} --parts kernels --kernel decode {model}");
        let mut stage = self.command(&format!("decode-kernels-{other}"), 60, &command, Some("--output-json"));
        stage.absent = Backend::Cuda.absent(self.machine);
        self.if_bench_has("compare", stage)
    }

    fn if_bench_has(&self, command: &str, mut stage: Stage) -> Stage {
        if !self.machine.bench_commands.iter().any(|found| found == command) {
            stage.absent = Some(format!("this bindery has no `bench {command}`"));
        }
        stage
    }

    fn torch(&self, shape: &str) -> Stage {
        let name = format!("torch-{shape}");
        let script = format!("python3 torch_baseline.py models/{shape}.json results/{name}.json");
        Stage {
            absent: Backend::Cuda.absent(self.machine).or_else(|| self.machine.without_python.clone()),
            command: words(&script).collect(),
            limit: self.limit(90),
            writes_json: true,
            name,
        }
    }
}
