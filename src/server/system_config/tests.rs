use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;

/// A certificate and its key.
fn identity() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A complete environment with some variables replaced or removed.
fn environment(changes: &[(&str, Option<&str>)]) -> Vec<(String, String)> {
    let (certificate, key) = identity();
    let mut vars = vec![
        ("KEY".to_owned(), "hunter2hunter2".to_owned()),
        ("NAME".to_owned(), "interval".to_owned()),
        ("TLS_CERT".to_owned(), certificate),
        ("TLS_KEY".to_owned(), key),
    ];
    for (name, value) in changes {
        vars.retain(|(other, _)| other != name);
        if let Some(value) = value {
            vars.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    vars.into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value)).collect()
}

fn problems(changes: &[(&str, Option<&str>)]) -> Vec<String> {
    SystemConfig::from_vars(environment(changes)).unwrap_err().problems().to_vec()
}

#[test]
fn what_gofer_passes_is_enough_and_the_rest_has_defaults() {
    let config = SystemConfig::from_vars(environment(&[])).unwrap();
    assert_eq!(config.name(), "interval");
    assert_eq!(config.log_level(), LogLevel::Info);
    assert_eq!(config.host(), "0.0.0.0:8082");
    assert_eq!(config.gofer_host().to_string(), "localhost:8080");
    assert!(!config.skip_tls_verify());
}

#[test]
fn all_that_is_given_is_read() {
    let config = SystemConfig::from_vars(environment(&[
        ("LOG_LEVEL", Some("WARN")),
        ("HOST", Some(":9000")),
        ("GOFER_HOST", Some("gofer.example.com")),
        ("SKIP_TLS_VERIFY", Some("T")),
    ]))
    .unwrap();
    assert_eq!(config.log_level(), LogLevel::Warn);
    assert_eq!(config.host(), "0.0.0.0:9000");
    assert_eq!(config.gofer_host().to_string(), "gofer.example.com:443");
    assert!(config.skip_tls_verify());
}

#[test]
fn a_level_is_known_by_each_of_gofers_names_in_any_case() {
    for (text, level) in [
        ("trace", LogLevel::Trace),
        ("Debug", LogLevel::Debug),
        ("INFO", LogLevel::Info),
        ("fatal", LogLevel::Fatal),
        ("pAnIc", LogLevel::Panic),
        ("DISABLED", LogLevel::Disabled),
        (" warn\n", LogLevel::Warn),
        ("", LogLevel::Info),
    ] {
        let config = SystemConfig::from_vars(environment(&[("LOG_LEVEL", Some(text))])).unwrap();
        assert_eq!((config.log_level(), config.has_unknown_log_level), (level, false), "{text}");
    }
}

#[test]
fn a_level_that_is_none_is_info_and_no_reason_not_to_start() {
    for text in ["loud", "warning", "7", "hunter2"] {
        let config = SystemConfig::from_vars(environment(&[("LOG_LEVEL", Some(text))])).unwrap();
        assert_eq!((config.log_level(), config.has_unknown_log_level), (LogLevel::Info, true));
        assert!(!format!("{config:?}").contains(text), "{text}");
    }
}

#[test]
fn everything_that_is_missing_is_reported_at_once_by_its_full_name() {
    let problems = SystemConfig::from_vars([("PATH", "/bin")]).unwrap_err().problems().to_vec();
    assert_eq!(
        problems,
        [
            "GOFER_EXTENSION_SYSTEM_KEY: is not set",
            "GOFER_EXTENSION_SYSTEM_NAME: is not set",
            "GOFER_EXTENSION_SYSTEM_TLS_CERT: is not set",
            "GOFER_EXTENSION_SYSTEM_TLS_KEY: is not set",
        ]
    );
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let problems = problems(&[
        ("KEY", Some(" ")),
        ("NAME", None),
        ("TLS_CERT", Some("/etc/certificate.pem")),
        ("HOST", Some("everywhere")),
        ("GOFER_HOST", Some("https://gofer")),
        ("SKIP_TLS_VERIFY", Some("perhaps")),
    ]);
    let names: Vec<_> =
        problems.iter().map(|problem| problem[PREFIX.len()..].split(':').next().unwrap()).collect();
    assert_eq!(names, ["KEY", "NAME", "TLS_CERT", "HOST", "GOFER_HOST", "SKIP_TLS_VERIFY"]);
}

#[test]
fn a_key_that_is_not_visible_ascii_is_refused() {
    for key in ["two words", "hunter\t2", "hünter2", "hunter2\u{7f}"] {
        let problem = "GOFER_EXTENSION_SYSTEM_KEY: must be printable ASCII without spaces";
        assert_eq!(problems(&[("KEY", Some(key))]), [problem]);
    }
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let (_, other) = identity();
    assert_eq!(
        problems(&[("TLS_KEY", Some(&other))]),
        ["GOFER_EXTENSION_SYSTEM_TLS_KEY: the private key does not match the certificate"]
    );
}

#[test]
fn secrets_are_shown_neither_by_debug_nor_in_errors() {
    let config = SystemConfig::from_vars(environment(&[])).unwrap();
    let shown = format!("{config:?} {config:#?}");
    assert!(!shown.contains("hunter2") && !shown.contains("PRIVATE"), "{shown}");
    let error = SystemConfig::from_vars(environment(&[("KEY", Some("two words"))])).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("two words") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn text_that_is_not_utf8_is_a_problem_only_in_variables_with_the_prefix() {
    let broken = || OsString::from_vec(vec![0xff, 0xfe]);
    let ours = |name: &str, value| (OsString::from(format!("{PREFIX}{name}")), value);
    let mut vars: Vec<(OsString, OsString)> =
        environment(&[]).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    vars.push((broken(), "value".into()));
    vars.push(("LS_COLORS".into(), broken()));
    assert!(SystemConfig::from_vars(vars.clone()).is_ok());
    vars.retain(|(name, _)| name != "GOFER_EXTENSION_SYSTEM_NAME");
    vars.push(ours("NAME", broken()));
    let error = SystemConfig::from_vars(vars).unwrap_err();
    assert_eq!(error.problems(), ["GOFER_EXTENSION_SYSTEM_NAME: is not valid UTF-8"]);
}
