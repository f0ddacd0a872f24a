//! An edited file is applied, a bad edit is not.

use llmd_e2e::poll_until;

use super::support::{DEADLINE, Up, deployment};

#[tokio::test(flavor = "multi_thread")]
async fn edits_scale_replace_and_a_bad_one_leaves_the_service_running() {
    let mut up = Up::file(&deployment(1, &[]));
    up.wait_for_engines(&["test-decode-0"]);
    let first = up.pid_of("test-decode-0");

    up.edit(&deployment(3, &[]));
    up.wait_for_engines(&["test-decode-0", "test-decode-1", "test-decode-2"]);
    assert_eq!(up.pid_of("test-decode-0"), first, "scaling restarts nothing");

    up.edit(&deployment(3, &[]).replace("path: simulated", "path: nowhere"));
    let note = up.wait_for_note("the service runs on");
    assert!(note.contains("spec.path") && note.contains("nowhere"), "{note}");
    assert_eq!(up.chat("still there?", 4).await.status, 200);
    assert_eq!(up.pid_of("test-decode-0"), first);

    up.edit(&deployment(2, &[("max-num-seqs", "7")]));
    poll_until("two new engines", DEADLINE, || {
        let ready = up.ready_engines();
        (ready.len() == 2 && up.rows().len() == 3 && !up.pids().contains(&first)).then_some(())
    });
    assert_eq!(up.chat("and now?", 4).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_router_is_restarted_on_the_same_address_and_a_new_name_is_refused() {
    let mut up = Up::file(&deployment(1, &[]));
    let router = up.pid_of("test-epp-0");
    up.edit(&deployment(1, &[]).replace("name: test\n", "name: other\n"));
    let note = up.wait_for_note("the service runs on");
    assert!(note.contains("metadata.name"), "{note}");

    let flags = "  router:\n    epp:\n      flags:\n        v: \"3\"\n";
    up.edit(&format!("{}{flags}", deployment(1, &[])));
    poll_until("a new router", DEADLINE, || {
        let rows = up.rows();
        let row = rows.get("test-epp-0")?;
        (row["state"] == "ready" && row["pid"] != router).then_some(())
    });
    assert_eq!(up.chat("hello again", 4).await.status, 200);
    assert_eq!(up.rows()["test-decode-0"]["restarts"], 0);
}
