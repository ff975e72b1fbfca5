use tracing::Level as Written;

use super::*;

#[test]
fn a_logger_has_its_modules_and_no_others() {
    let mut levels = Levels::all(Level::Warning);
    levels.set_pairs("upstream:debug,pool:error,rbac:trace").unwrap();
    let targets = levels.targets();
    assert!(targets.would_enable("nuncio::upstream::manager", &Written::DEBUG));
    assert!(!targets.would_enable("nuncio::upstream::pool::h1", &Written::WARN));
    assert!(
        !targets.would_enable("nuncio::upstream::dns", &Written::INFO),
        "of the logger dns"
    );
    assert!(targets.would_enable("nuncio::extensions::filters::http::rbac::filter", &Written::TRACE));
    assert!(!targets.would_enable("nuncio::extensions::filters::http::cors", &Written::INFO));
    assert!(targets.would_enable("some_library", &Written::WARN));
    assert!(!targets.would_enable("some_library", &Written::INFO));
}

#[test]
fn wrong_names_are_told_apart() {
    let mut levels = Levels::all(Level::Info);
    assert_eq!(
        levels.set("nobody", "info"),
        Err(LogError::UnknownLogger("nobody".into()))
    );
    assert_eq!(levels.set("rbac", "warn"), Err(LogError::UnknownLevel("warn".into())));
    assert_eq!(levels.set_pairs("rbac"), Err(LogError::Incomplete("rbac".into())));
    assert_eq!(levels.set_pairs("rbac:"), Err(LogError::Incomplete("rbac:".into())));
    assert_eq!(levels.set_pairs(""), Ok(()));
}

#[test]
fn every_module_of_ours_that_a_logger_names_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (logger, modules) in LOGGERS {
        for module in modules.iter().filter_map(|m| m.strip_prefix("nuncio::")) {
            let path = root.join(module.replace("::", "/"));
            assert!(
                path.exists() || path.with_extension("rs").exists(),
                "{logger}: {module}"
            );
        }
    }
}
