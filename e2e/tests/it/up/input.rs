//! Wrong input ends with the right code and says what to change.

use super::support::{deployment, llmd};

fn file(content: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cr.yaml");
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_wrong_field_ends_with_code_2_and_is_named_with_the_nearest_right_one() {
    let (_dir, path) = file(&deployment(2, &[]).replace("replicas:", "replicsa:"));
    let (code, _, error) = llmd(&["up", "-f", &path]);
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains("replicsa") && error.contains("replicas"),
        "{error}"
    );
    let (_dir, path) = file(&deployment(2, &[]).replace("path: simulated", "path: simulatet"));
    let (code, _, error) = llmd(&["up", "-f", &path]);
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains("spec.path") && error.contains("simulatet") && error.contains("simulated"),
        "{error}"
    );
}

#[test]
fn a_taken_port_ends_with_code_3_and_names_the_port_and_the_fix() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, error) = llmd(&["up", "--port", &port]);
    assert_eq!(code, 3, "{error}");
    assert!(
        error.contains(&format!("127.0.0.1:{port}")) && error.contains("--port"),
        "{error}"
    );
}

#[test]
fn a_wider_bind_needs_a_key() {
    let (code, _, error) = llmd(&["up", "--bind", "0.0.0.0", "--port", "0"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("--api-key"), "{error}");
}

#[test]
fn more_gpus_than_the_machine_has_are_refused_with_both_numbers() {
    let cr = "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata:\n  name: big\nspec:\n  model:\n    uri: \
              hf://org/name\n  pools:\n  - name: decode\n    replicas: 40\n    parallelism:\n      tensor: 8\n";
    let (dir, path) = file(cr);
    // a `vllm` that is never started, so that only the GPUs are missing
    let vllm = dir.path().join("vllm");
    std::fs::write(&vllm, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&vllm, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let output = std::process::Command::new(llmd_e2e::process::llmd_bin())
        .args(["up", "-f", &path, "--port", "0"])
        .env("PATH", search)
        .env("HF_TOKEN", "unused")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(
        error.contains("320 GPUs") && error.contains("this machine has"),
        "{error}"
    );
}

#[test]
fn verbs_answer_offline_with_stable_codes_and_formats() {
    let (_dir, path) = file(&deployment(2, &[]));
    let (code, out, _) = llmd(&["render", "-f", &path]);
    assert_eq!(code, 0);
    assert!(
        out.contains("kind: Deployment") && out.contains("name: test-decode"),
        "{out}"
    );
    let (code, out, _) = llmd(&["render", "-f", &path, "-o", "table"]);
    assert_eq!(code, 0);
    assert!(
        out.lines()
            .any(|line| line.starts_with("Deployment") && line.contains("test-decode")),
        "{out}"
    );
    let flags = [
        "--no-inference-pool",
        "--image-repository=reg.test/x",
        "--image-tag=t1",
    ];
    let (code, out, _) = llmd(&[&["render", "-f", &path], &flags[..]].concat());
    assert!(code == 0 && out.contains("reg.test/x/llmd-epp:t1"), "{out}");
    assert!(
        !out.contains("InferencePool") && out.contains("--endpoint-selector="),
        "{out}"
    );
    let (code, out, _) = llmd(&["validate", "-f", &path, "-o", "json"]);
    assert_eq!(code, 0, "{out}");
    assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    let (code, out, _) = llmd(&["paths", "list", "-o", "json"]);
    let paths: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert!(
        paths
            .as_array()
            .unwrap()
            .iter()
            .any(|path| path["name"] == "simulated"),
        "{out}"
    );
    let (code, out, _) = llmd(&["paths", "show", "optimized-baseline"]);
    assert!(code == 0 && out.contains("kind: WellLitPath"), "{out}");
    let (code, _, error) = llmd(&["paths", "show", "optimised-baseline"]);
    assert!(code == 2 && error.contains("optimized-baseline"), "{error}");
    let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/wva/fleet.yaml");
    let (code, out, _) = llmd(&["wva", "plan", "-f", fleet]);
    assert!(
        code == 0 && out.contains("cost 128.00; no plan costs less"),
        "{out}"
    );
    let (code, out, _) = llmd(&["wva", "plan", "-f", fleet, "-o", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &plan["models"][1]["variants"][0]["replicas"]),
        (0, &2.into())
    );
    let (_dir, wrong) = file("pools: []\nmodels: [{name: m, demand: 1, variants: []}]");
    let (code, _, error) = llmd(&["wva", "plan", "-f", &wrong]);
    assert!(
        code == 2 && error.contains("models[0].variants is empty"),
        "{error}"
    );
    let (code, out, _) = llmd(&["crds", "print"]);
    assert!(code == 0 && out.contains("llmdeployments.llmd.dev"));
    let (code, _, error) = llmd(&["version", "-o", "xml"]);
    assert!(
        code == 2 && error.contains("json") && error.contains("yaml"),
        "{error}"
    );
    let (code, out, _) = llmd(&["completion", "bash"]);
    assert!(code == 0 && out.contains("llmd"));
    let (code, out, _) = llmd(&["up", "--print"]);
    assert!(code == 0 && out.contains("kind: LLMDeployment"), "{out}");
}

#[test]
fn several_documents_come_from_standard_input_and_each_problem_is_a_line() {
    use std::io::Write;
    let mut child = std::process::Command::new(llmd_e2e::process::llmd_bin())
        .args(["validate", "-f", "-"])
        .env("NO_COLOR", "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let good = deployment(1, &[]);
    let bad = good
        .replace("name: test\n", "name: other\n")
        .replace("path: simulated", "path: nowhere");
    let input = format!("{good}---\n{bad}");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(2), "{out}{error}");
    assert!(error.contains("nowhere") && error.contains("other"), "{error}");
}
