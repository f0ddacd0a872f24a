//! `llmd epp validate` and `llmd epp explain-config`: a configuration is built and nothing is started.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use llmd_epp_core::config::explain::Explanation;
use llmd_epp_core::parsers::Parsers;
use llmd_epp_core::{BuildEnv, EndpointPickerConfig, assemble};
use llmd_process::pflag::{FlagError, FlagSet};

/// Wrong usage, or a configuration that is refused.
const USAGE: u8 = 2;
const VALIDATE: &str = "validate";
const EXPLAIN: &str = "explain-config";

/// Runs the verb that `arguments` begin with; `None` when they are flags of the role.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let (first, rest) = arguments.split_first()?;
    let outcome = match first.to_str()? {
        VALIDATE => validate(rest, &mut io::stdout().lock()),
        EXPLAIN => explain(rest, &mut io::stdout().lock()),
        _ => return None,
    };
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems {
                let _ = writeln!(io::stderr(), "error: {problem}");
            }
            ExitCode::from(USAGE)
        }
    })
}

type Outcome = Result<(), Vec<String>>;

fn experimental() -> FlagSet {
    FlagSet::new().bool(
        "allow-experimental-plugins",
        false,
        "allow plugins of stability Alpha",
    )
}

fn validate(arguments: &[OsString], out: &mut impl Write) -> Outcome {
    let flags = || {
        experimental().bool(
            "portable",
            false,
            "also refuse what upstream does not know: our own plugins and parameters",
        )
    };
    let Some((flags, files)) = parse(flags, arguments, "validate FILE...", out)? else {
        return Ok(());
    };
    if files.is_empty() {
        return Err(vec!["give one or more files, or - for standard input".to_owned()]);
    }
    let mut problems = Vec::new();
    for file in &files {
        match built(file, flags.bool("allow-experimental-plugins")) {
            Err(error) => problems.push(format!("{file}: {error}")),
            Ok(built) => {
                let foreign = if flags.bool("portable") {
                    built.config.foreign_keys()
                } else {
                    Vec::new()
                };
                if foreign.is_empty() {
                    print(out, &format!("{file} is valid\n"))?;
                }
                for warning in &built.warnings {
                    print(out, &format!("  warning: {warning}\n"))?;
                }
                problems.extend(foreign.iter().map(|line| format!("{file}: {line}")));
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn explain(arguments: &[OsString], out: &mut impl Write) -> Outcome {
    let flags = || {
        experimental()
            .string("output", "text", "text or json")
            .shorthand("output", 'o')
    };
    let Some((flags, files)) = parse(flags, arguments, "explain-config [FILE]", out)? else {
        return Ok(());
    };
    let allow_experimental = flags.bool("allow-experimental-plugins");
    let built = match &files[..] {
        [] => build(
            EndpointPickerConfig::upstream_default(),
            Vec::new(),
            allow_experimental,
        ),
        [file] => built(file, allow_experimental).map_err(|error| format!("{file}: {error}")),
        _ => Err("give one file; none explains upstream's default".to_owned()),
    };
    let built = built.map_err(|error| vec![error])?;
    match flags.string("output").as_str() {
        "text" => {
            print(out, &built.explanation.to_string())?;
            for warning in &built.warnings {
                print(out, &format!("warning: {warning}\n"))?;
            }
            Ok(())
        }
        "json" => {
            let mut value = serde_json::json!(built.explanation);
            value["warnings"] = serde_json::json!(built.warnings);
            print(out, &format!("{value:#}\n"))
        }
        other => Err(vec![format!("-o {other}: use text or json")]),
    }
}

/// Flags and operands; `None` after the help was printed.
fn parse(
    flags: impl Fn() -> FlagSet,
    arguments: &[OsString],
    synopsis: &str,
    out: &mut impl Write,
) -> Result<Option<(llmd_process::pflag::Flags, Vec<String>)>, Vec<String>> {
    match flags().parse_with_operands(arguments.iter().cloned()) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(FlagError::Help) => {
            print(out, &flags().usage(&format!("epp {synopsis}")))?;
            Ok(None)
        }
        Err(error) => Err(vec![error.to_string()]),
    }
}

struct Built {
    config: EndpointPickerConfig,
    explanation: Explanation,
    warnings: Vec<String>,
}

fn built(file: &str, allow_experimental: bool) -> Result<Built, String> {
    let text = read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let decoded = EndpointPickerConfig::decode(&text).map_err(|error| error.to_string())?;
    build(decoded.config, decoded.warnings, allow_experimental)
}

fn build(
    config: EndpointPickerConfig,
    mut warnings: Vec<String>,
    allow_experimental: bool,
) -> Result<Built, String> {
    let env = BuildEnv {
        allow_experimental,
        ..BuildEnv::detached()
    };
    let assembly = assemble(&config, env).map_err(|error| error.to_string())?;
    Parsers::from_types(assembly.parsers.iter().map(|plan| plan.name.plugin_type))
        .map_err(|error| error.to_string())?;
    warnings.extend(assembly.warnings);
    Ok(Built {
        config,
        explanation: assembly.explanation,
        warnings,
    })
}

fn read(file: &str) -> io::Result<String> {
    if file == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

fn print(out: &mut impl Write, text: &str) -> Outcome {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader like `head` that has seen enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(vec![format!("cannot write to standard output: {error}")])
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        std::fs::write(file.path(), format!("{head}{text}")).expect("written");
        file
    }

    #[test]
    fn files_are_judged_one_by_one() {
        let good = file(
            "plugins: [{type: queue-scorer}, {type: no-hit-lru-scorer, parameters: {prefixPluginName: x}}]",
        );
        let bad = file("plugins: [{type: queue-scorer, parameters: {x: 1}}]");
        let mut out = Vec::new();
        let line = format!(
            "{} {} /does/not/exist",
            good.path().display(),
            bad.path().display()
        );
        let problems = validate(&words(&line), &mut out).expect_err("refused");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("unknown field `x`"), "{problems:?}");
        assert!(
            problems[1].starts_with("/does/not/exist: cannot be read"),
            "{problems:?}"
        );
        let out = String::from_utf8(out).expect("text");
        assert!(
            out.contains("is valid\n  warning: plugin 'no-hit-lru-scorer': parameters.prefixPluginName"),
            "{out}"
        );
    }

    #[test]
    fn wrong_usage_is_named() {
        let mut out = Vec::new();
        assert!(validate(&[], &mut out).expect_err("no file")[0].contains("one or more files"));
        assert!(validate(&words("--nonsense x"), &mut out).expect_err("flag")[0].contains("--nonsense"));
        assert!(explain(&words("-o xml"), &mut out).expect_err("format")[0].contains("text or json"));
        assert!(out.is_empty());
        explain(&words("--help"), &mut out).expect("help");
        assert!(
            String::from_utf8(out)
                .expect("text")
                .contains("explain-config [FILE]")
        );
        assert!(run(&words("--grpc-port=1")).is_none() && run(&[]).is_none());
    }

    #[test]
    fn the_effective_pipeline_is_told() {
        let mut out = Vec::new();
        explain(&[], &mut out).expect("upstream's default");
        insta::assert_snapshot!(String::from_utf8(out).expect("text"));
        let own = file(
            "plugins: [{type: prefix-cache-scorer, name: prefix}, {type: decode-filter}, {type: by, name: x}]",
        );
        let error = explain(&words(&own.path().display().to_string()), &mut Vec::new());
        assert!(error.expect_err("unknown type")[0].contains("plugin type 'by' is not registered"));
    }

    #[test]
    fn json_has_the_same_and_the_warnings() {
        let own = file(
            "plugins: [{type: prefix-cache-scorer, name: prefix}, {type: decode-filter}]\nfeatureGates: [haPopulateNonLeaderDatastore]",
        );
        let mut out = Vec::new();
        let line = format!("-o json {}", own.path().display());
        explain(&words(&line), &mut out).expect("valid");
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(
            value["profiles"][0]["filters"],
            serde_json::json!(["decode-filter"])
        );
        assert_eq!(
            value["profiles"][0]["scorers"],
            serde_json::json!([{"plugin": "prefix", "weight": 1.0}])
        );
        assert_eq!(value["profiles"][0]["picker"], "max-score-picker");
        let producers = value["producers"].as_array().expect("a list");
        let place = |name: &str| producers.iter().position(|producer| producer == name);
        assert!(place("approx-prefix-cache-producer") < place("inflight-load-producer"));
        assert!(place("approx-prefix-cache-producer").is_some());
        assert_eq!(
            value["plugins"][0]["consumes"],
            serde_json::json!(["PrefixCacheMatchInfo/approx-prefix-cache-producer"])
        );
        assert!(
            value["warnings"][0]
                .as_str()
                .expect("text")
                .contains("haPopulateNonLeaderDatastore")
        );
    }
}
