use super::*;

fn with(change: impl FnOnce(&mut SimArgs)) -> Result<SimConfig, ConfigError> {
    let mut args = SimArgs::for_model("m");
    change(&mut args);
    args.config()
}

#[test]
fn the_defaults_are_a_valid_configuration() {
    let config = with(|_| {}).unwrap();
    assert_eq!(config.models, ["m".into()]);
    assert!(config.engine.prefix_caching);
    assert_eq!(
        config.overrides,
        Overrides {
            under_load: 1.0,
            ..Overrides::default()
        }
    );
}

#[test]
fn wrong_flags_are_refused_by_name_with_the_fix() {
    type Change = fn(&mut SimArgs);
    let cases: [(Change, &str); 14] = [
        (
            |a| a.max_num_seqs = 0,
            "--max-num-seqs: 0 is out of range; at least 1",
        ),
        (|a| a.block_size = 0, "--block-size: 0"),
        (|a| a.max_num_batched_tokens = 8, "at least --max-num-seqs (256)"),
        (|a| a.max_model_len = 1, "--max-model-len: 1"),
        (|a| a.kv_cache_size = 512, "needs 513 blocks of --block-size 16"),
        (|a| a.failure_injection_rate = 101, "0 to 100 percent"),
        (
            |a| a.failure_types = vec![FailureKind::Hang],
            "--failure-types has no effect without --failure-injection-rate",
        ),
        (|a| a.step_jitter = 2.0, "--step-jitter: 2"),
        (
            |a| a.time_factor_under_load = Some(2.0),
            "--time-factor-under-load has no effect",
        ),
        (
            |a| a.time_to_first_token_std_dev = Some(Duration::ZERO),
            "without --time-to-first-token",
        ),
        (
            |a| a.inter_token_latency_std_dev = Some(Duration::ZERO),
            "without --inter-token-latency",
        ),
        (
            |a| {
                a.time_to_first_token = Some(Duration::ZERO);
                a.prefill_overhead = Some(Duration::ZERO);
            },
            "exclude each other",
        ),
        (
            |a| a.served_model_name = vec!["x".into(), "x".into()],
            "the name `x` is given twice",
        ),
        (
            |a| a.lora_modules = vec!["m=/p".parse().unwrap()],
            "--lora-modules: the name `m`",
        ),
    ];
    for (change, expected) in cases {
        let message = with(change).unwrap_err().to_string();
        assert!(
            message.contains(expected),
            "`{message}` does not contain `{expected}`"
        );
    }
}

#[test]
fn durations_take_units_and_bare_milliseconds() {
    for (text, expected) in [
        ("20", Duration::from_millis(20)),
        ("1.5s", Duration::from_millis(1500)),
        ("40us", Duration::from_micros(40)),
        ("2m", Duration::from_secs(120)),
        ("0", Duration::ZERO),
    ] {
        assert_eq!(duration(text), Ok(expected), "{text}");
    }
    for text in ["", "x", "5 s", "1d", "-1s", "30h", "1.2.3s"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn lora_modules_take_both_of_vllm_s_forms() {
    let expected = LoraModule {
        name: "a".into(),
        path: "/p".into(),
    };
    assert_eq!("a=/p".parse(), Ok(expected.clone()));
    assert_eq!(
        r#"{"name": "a", "path": "/p", "base_model_name": "m"}"#.parse(),
        Ok(expected)
    );
    for wrong in ["a", "=/p", "{}", "{"] {
        assert!(wrong.parse::<LoraModule>().is_err(), "{wrong}");
    }
}

#[test]
fn flags_parse_as_llm_d_inference_sim_s() {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: SimArgs,
    }
    let line = "sim --model m --served-model-name a b --mode echo --enable-kvcache=false --kv-cache-size 600 --block-size 16 \
                --max-model-len 4096 --time-to-first-token 2s --inter-token-latency 30 --time-factor-under-load 2.5 \
                --failure-injection-rate 10 --failure-types rate_limit,server_error --startup-duration 1s \
                --lora-modules {\"name\":\"t\",\"path\":\"/t\"} --max-loras 2";
    let command: Command = clap::Parser::parse_from(line.split_whitespace());
    let config = command.args.config().unwrap();
    assert_eq!(config.models, ["a".into(), "b".into()]);
    assert!(!config.engine.prefix_caching);
    assert_eq!(
        config.failures,
        [FailureKind::RateLimit, FailureKind::ServerError]
    );
    assert_eq!(
        config.overrides.next_token.unwrap().mean,
        Duration::from_millis(30)
    );
}

fn parse(line: &str) -> SimArgs {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: SimArgs,
    }
    <Command as clap::Parser>::try_parse_from(std::iter::once("sim").chain(line.split_whitespace()))
        .unwrap()
        .args
}

#[test]
fn a_command_line_of_the_operator_for_a_wide_group_is_read() {
    let line = "--model=m --port=8200 --enable-expert-parallel --data-parallel-size=16 --data-parallel-size-local=8 \
        --data-parallel-multi-port-external-lb --data-parallel-supervisor-port=8208 --data-parallel-address=leader \
        --data-parallel-rpc-port=5555 --node-rank=1 --block-size=128 \
        --kv-transfer-config={\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\"}";
    let config = parse(line).config().unwrap();
    assert_eq!(
        config.ranks,
        Ranks {
            size: 16,
            local: 8,
            start: 8,
            ports: Ports::PerRank,
            supervisor: Some(8208),
            group: Some(GroupAddress {
                host: "leader".into(),
                port: 5555
            }),
        }
    );
    assert!(config.transfer.config.unwrap().gives());
}

#[test]
fn ranks_that_make_no_group_are_refused_with_the_fix() {
    for (line, expected) in [
        ("--data-parallel-size=0", "--data-parallel-size: 0"),
        (
            "--data-parallel-size=8 --data-parallel-size-local=3",
            "must be a multiple of it",
        ),
        (
            "--data-parallel-size=8 --data-parallel-size-local=4",
            "--data-parallel-hybrid-lb",
        ),
        (
            "--data-parallel-size=8 --data-parallel-size-local=4 --data-parallel-hybrid-lb",
            "without --data-parallel-address",
        ),
        (
            "--data-parallel-size=8 --data-parallel-start-rank=8",
            "--data-parallel-start-rank: 8",
        ),
        (
            "--data-parallel-size=8 --port=65530 --data-parallel-multi-port-external-lb",
            "room for 8 ports",
        ),
        (
            "--data-parallel-size=2 --lora-modules a=b",
            "--lora-modules and --data-parallel-size",
        ),
    ] {
        let error = parse(&format!("--model=m {line}"))
            .config()
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
