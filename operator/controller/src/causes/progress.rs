//! What engines say while they start, as a closed table: a line that matches is counted as a phase, never quoted.
//!
//! Phrases of vLLM 0.11 and later, the progress bars of Hugging Face Hub, and our simulator. Engines answer nobody
//! before they are done, so these lines are the only source.

use k8s_openapi::jiff::Timestamp;

use super::Phase;

struct Row {
    /// Any of these in a line.
    phrases: &'static [&'static str],
    phase: Phase,
}

/// In this order: the first row that matches a line counts, so special phrases stand before general ones.
const TABLE: [Row; 5] = [
    Row {
        // a directory: nothing is downloaded
        phrases: &[
            "Starting to load model /",
            "Time spent downloading weights",
            "Loading safetensors checkpoint shards",
            "Loading pt checkpoint shards",
            "Loading safetensors using",
            "Loading weights took",
            "Model loading took",
        ],
        phase: Phase::LoadingWeights,
    },
    Row {
        phrases: &[
            "Starting to load model ",
            ".safetensors: ",
            "Fetching ",
            "Downloading shards",
        ],
        phase: Phase::Downloading,
    },
    Row {
        // after this the graphs are captured
        phrases: &["torch.compile took", "torch.compile takes"],
        phase: Phase::WarmingUp,
    },
    Row {
        phrases: &[
            "Warming up model for the compilation",
            "for vLLM's torch.compile",
            "Dynamo bytecode transform time",
            "Compiling a graph for",
            "Directly load the compiled graph",
        ],
        phase: Phase::Compiling,
    },
    Row {
        phrases: &[
            "Warming up",
            "Available KV cache memory",
            "KV cache size",
            "Capturing CUDA graph",
            "Graph capturing finished",
            "Initial profiling/warmup run took",
            "init engine (profile",
            "Starting vLLM",
            "simulated engine listens",
        ],
        phase: Phase::WarmingUp,
    },
];

/// The phase that the last lines of a starting engine's log tell of, and the earliest of them that does. Each line
/// begins with the time at which it was written, as the kubelet puts it there.
pub fn progress(log: &str) -> Option<(Phase, Timestamp)> {
    let mut lines = log.lines().rev().filter_map(known);
    let (phase, mut since) = lines.next()?;
    for (_, earlier) in lines.take_while(|(earlier, _)| *earlier == phase) {
        since = earlier;
    }
    Some((phase, since))
}

fn known(line: &str) -> Option<(Phase, Timestamp)> {
    let (time, text) = line.split_once(' ')?;
    let row = TABLE
        .iter()
        .find(|row| row.phrases.iter().any(|phrase| text.contains(phrase)))?;
    Some((row.phase, time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Option<(String, String)> {
        let log: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(second, line)| format!("2026-01-01T00:00:{second:02}.5Z {line}"))
            .collect();
        progress(&log.join("\n")).map(|(phase, since)| (phase.to_string(), since.to_string()))
    }

    #[test]
    fn the_last_known_line_counts_and_its_phase_began_with_the_first_of_its_kind() {
        let lines = [
            "(APIServer pid=1) INFO 11-23 [entry.py:140] vLLM API server version 0.32.0",
            "(EngineCore pid=9) INFO [gpu_model_runner.py:5040] Starting to load model Qwen/Qwen3-0.6B...",
            "(EngineCore pid=9) hf_a-secret-of-nobody",
            "model-00001-of-00002.safetensors:  12%|█▏        | 0.5G/4.0G",
            "(EngineCore pid=9) INFO Time spent downloading weights for Qwen/Qwen3-0.6B: 31.2 seconds",
            "Loading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]",
            "(EngineCore pid=9) INFO Using cache directory: /.cache/vllm/x for vLLM's torch.compile",
            "(EngineCore pid=9) INFO torch.compile took 14.21 s in total",
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   3%|▎         | 2/67",
        ];
        let is = |count: usize| told(&lines[..count]);
        let at =
            |phase: &str, second: u8| Some((phase.to_owned(), format!("2026-01-01T00:00:{second:02}.5Z")));
        assert_eq!(is(1), None);
        assert_eq!(is(2), at("downloading the model", 1));
        assert_eq!(
            is(4),
            at("downloading the model", 1),
            "lines between do not matter"
        );
        assert_eq!(is(5), at("loading the weights", 4));
        assert_eq!(is(6), at("loading the weights", 4));
        assert_eq!(is(7), at("compiling", 6));
        assert_eq!(is(8), at("warming up", 7));
        assert_eq!(is(9), at("warming up", 7));
    }

    #[test]
    fn a_recorded_start_of_vllm_goes_through_the_phases_in_order() {
        // vLLM 0.32.0, CPU build, weights in a directory: every line that its start logged about these steps
        let recorded = [
            "(Worker pid=9494) INFO 11-23 06:21:15 [cpu_model_runner.py:68] Starting to load model /models/tiny...",
            "Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]",
            "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 65.35it/s]",
            "(Worker pid=9494) INFO 11-23 06:21:15 [default_loader.py:501] Loading weights took 0.02 seconds",
            "(EngineCore pid=8412) INFO 11-23 06:21:16 [utils.py:347] Using LBHNC KV cache layout.",
            "(Worker pid=9494) INFO 11-23 06:21:16 [cpu_model_runner.py:87] Warming up model for the compilation...",
            "(Worker pid=9494) INFO 11-23 06:22:15 [monitor.py:91] [backbone] Initial profiling/warmup run took 0.02 s",
            "(Worker pid=9494) INFO 11-23 06:22:16 [cpu_model_runner.py:91] Warming up done.",
            "(EngineCore pid=8412) INFO 11-23 06:22:16 [kv_cache_utils.py:2327] CPU KV cache size: 1,048,576 tokens",
            "(EngineCore pid=8412) INFO 11-23 06:22:16 [core.py:402] init engine (profile, create kv cache, warmup model) took 59.71 s",
            "(APIServer pid=7293) INFO 11-23 06:22:17 [entry.py:140] Starting vLLM server on http://127.0.0.1:18736",
        ];
        let mut phases: Vec<String> = (1..=recorded.len())
            .map(|count| told(&recorded[..count]).unwrap().0)
            .collect();
        phases.dedup();
        assert_eq!(phases, ["loading the weights", "compiling", "warming up"]);
    }

    #[test]
    fn weights_of_a_directory_are_not_downloaded() {
        let line = "INFO [cpu_model_runner.py:68] Starting to load model /model-cache/qwen...";
        assert_eq!(told(&[line]).unwrap().0, "loading the weights");
    }

    #[test]
    fn what_is_no_log_of_an_engine_tells_nothing() {
        for log in ["", "no time", "Loading weights took 3 s", "2026-01-01T00:00:00Z"] {
            assert_eq!(progress(log), None, "{log:?}");
        }
    }
}
