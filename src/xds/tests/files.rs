//! Filesystem subscriptions.

use std::{fs, path::Path};

use super::*;

fn write(path: &Path, version: &str, names: &[&str]) {
    let resources: String = names
        .iter()
        .map(|n| format!("- {{ '@type': {}, name: {n} }}\n", clusters()))
        .collect();
    let list = if names.is_empty() { " []\n" } else { "\n" };
    fs::write(path, format!("version_info: '{version}'\nresources:{list}{resources}")).unwrap();
}

fn started() -> Rc<Worker> {
    let worker = proxy("node: { id: me, cluster: here }");
    worker.server.xds.start();
    worker
}

#[test]
fn a_file_is_read_at_start_when_moved_over_and_when_written() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cds.yaml");
        write(&path, "1", &["a", "b"]);
        let proxy = started();
        let source = source(&format!("{{ path: '{}' }}", path.display()));
        let mut watched = watch(&proxy, &clusters(), &source, Names::Wildcard);
        assert_eq!(watched.next().await, update("1", &[("a", "1"), ("b", "1")], &[]));

        let next = dir.path().join("next");
        write(&next, "2", &["b"]);
        fs::rename(&next, &path).unwrap();
        assert_eq!(watched.next().await, update("2", &[("b", "2")], &["a"]));

        write(&path, "3", &[]);
        assert_eq!(watched.next().await, update("3", &[], &["b"]));

        fs::write(&next, "resources: {").unwrap();
        fs::rename(&next, &path).unwrap();
        assert!(matches!(watched.next().await, Told::Failed(FetchFailure::Rejected(_))));
        let stat = |name: &str| proxy.server.stats.counter_value(name);
        assert_eq!(stat("test.update_success"), Some(3));
        assert_eq!(
            (stat("test.update_failure"), stat("test.update_rejected")),
            (Some(1), Some(0))
        );
    });
}

#[test]
fn a_watched_directory_is_told_of_moves_only() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("v1"), dir.path().join("v2"));
        fs::create_dir(&old).unwrap();
        fs::create_dir(&new).unwrap();
        write(&old.join("cds.yaml"), "1", &["a"]);
        write(&new.join("cds.yaml"), "2", &["a", "b"]);
        // As Kubernetes does it: the data stands behind a link that is replaced by a move.
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink(&old, &data).unwrap();
        let proxy = started();
        let source = source(&format!(
            "{{ path_config_source: {{ path: '{}', watched_directory: {{ path: '{}' }} }} }}",
            data.join("cds.yaml").display(),
            dir.path().display()
        ));
        let mut watched = watch(&proxy, &clusters(), &source, Names::Wildcard);
        assert_eq!(watched.next().await, update("1", &[("a", "1")], &[]));
        let next = dir.path().join("next");
        std::os::unix::fs::symlink(&new, &next).unwrap();
        fs::rename(&next, &data).unwrap();
        assert_eq!(watched.next().await, update("2", &[("a", "2"), ("b", "2")], &[]));
    });
}

#[test]
fn a_path_that_is_not_there_is_refused() {
    run(async {
        let proxy = started();
        let source = source("{ path: /nowhere/cds.yaml }");
        let mut cx = crate::config::BuildCx::new(&proxy.server);
        let error = proxy.server.xds.check(&source, &mut cx).unwrap_err();
        assert_eq!(
            error.reason(),
            "paths must refer to an existing path in the system: '/nowhere/cds.yaml' does not exist"
        );
    });
}
