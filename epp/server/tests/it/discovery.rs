//! File discovery on a real file system.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use llmd_epp::datalayer::{DataLayer, Options};
use llmd_epp::discovery::file::{self, DiscoveryError};
use llmd_epp_api::SlotTable;
use llmd_epp_core::plugins::datalayer::file_discovery::{FileDiscovery, Members};

use crate::datalayer::names;
use crate::wait::until_true;

fn layer() -> DataLayer {
    let options = Options {
        sources: Vec::new(),
        refresh_interval: Duration::from_secs(1),
        adaptive: false,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(|_| {}),
        deprecated_metrics: false,
        runtime: tokio::runtime::Handle::current(),
    };
    DataLayer::start(options, &prometheus::Registry::new()).expect("registers")
}

fn listing(names: &[&str]) -> String {
    let entries: Vec<String> = names
        .iter()
        .map(|name| format!("- {{name: {name}, address: 127.0.0.1, port: '8000'}}\n"))
        .collect();
    format!("endpoints:\n{}", entries.concat())
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("written");
    std::fs::rename(beside, path).expect("renamed");
}

fn watched(path: &Path) -> FileDiscovery {
    FileDiscovery {
        members: Members::Engines,
        path: path.to_owned(),
        watch: true,
    }
}

#[tokio::test]
async fn changes_are_followed_and_bad_ones_leave_the_pool_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("endpoints.yaml");
    std::fs::write(&path, listing(&["a", "b"])).expect("written");
    let layer = layer();
    let _discovery = file::start(&watched(&path), &layer).await.expect("starts");
    assert_eq!(
        names(&layer.snapshot()),
        ["a", "b"],
        "loaded before start returns"
    );

    replace(&path, &listing(&["b", "c", "d"]));
    until_true("renamed into place", || {
        names(&layer.snapshot()) == ["b", "c", "d"]
    })
    .await;
    std::fs::write(&path, listing(&["b"])).expect("written");
    until_true("written in place", || names(&layer.snapshot()) == ["b"]).await;

    // Each bad state is followed by a good one: what is seen then proves that the bad one was passed over.
    let version = layer.snapshot().version;
    replace(&path, "endpoints: [");
    std::fs::remove_file(&path).expect("removed");
    replace(&path, &"#".repeat(2 << 20));
    replace(&path, &listing(&["b", "e"]));
    until_true("good again", || names(&layer.snapshot()) == ["b", "e"]).await;
    assert_eq!(
        layer.snapshot().version,
        version + 1,
        "nothing was published in between"
    );

    replace(
        &path,
        &format!(
            "{}- {{name: bad, address: nowhere, port: '1'}}\n",
            listing(&["f"])
        ),
    );
    until_true("a bad entry does not hide the good one", || {
        names(&layer.snapshot()) == ["f"]
    })
    .await;
    replace(&path, "endpoints: []");
    until_true("an empty list is taken at its word", || {
        layer.snapshot().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_fatal() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("endpoints.yaml");
    let missing = file::start(&watched(&path), &layer()).await.expect_err("no file");
    assert!(matches!(missing, DiscoveryError::Read { .. }));
    assert!(missing.to_string().contains("endpoints.yaml"), "{missing}");

    std::fs::write(&path, "endpoints: 7").expect("written");
    let wrong = file::start(&watched(&path), &layer()).await.expect_err("no list");
    assert!(matches!(wrong, DiscoveryError::Content { .. }), "{wrong}");

    let nowhere = watched(Path::new("/does/not/exist/endpoints.yaml"));
    let unwatchable = file::start(&nowhere, &layer()).await.expect_err("no directory");
    assert!(
        matches!(unwatchable, DiscoveryError::Watch { .. }),
        "{unwatchable}"
    );
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_symbolic_links() {
    let directory = tempfile::tempdir().expect("directory");
    let revision = |name: &str, endpoints: &[&str]| {
        let folder = directory.path().join(name);
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("endpoints.yaml"), listing(endpoints)).expect("written");
        let link = directory.path().join("..tmp");
        std::os::unix::fs::symlink(name, &link).expect("linked");
        std::fs::rename(link, directory.path().join("..data")).expect("renamed");
    };
    revision("..1", &["a"]);
    let path = directory.path().join("endpoints.yaml");
    std::os::unix::fs::symlink("..data/endpoints.yaml", &path).expect("linked");
    let layer = layer();
    let _discovery = file::start(&watched(&path), &layer).await.expect("starts");
    assert_eq!(names(&layer.snapshot()), ["a"]);
    revision("..2", &["a", "b"]);
    until_true("the new revision", || names(&layer.snapshot()) == ["a", "b"]).await;
}
