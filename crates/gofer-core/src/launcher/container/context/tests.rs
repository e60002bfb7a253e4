use std::fs;

use super::*;

/// Docker's directory, with contexts of these names and addresses.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, config: &str, contexts: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("gofer-{}-{name}", std::process::id()));
        for (name, address) in contexts {
            let meta = path.join("contexts/meta").join(hex::encode(sha256(name.as_bytes())));
            fs::create_dir_all(&meta).unwrap();
            let text = format!(
                r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{address}",
                   "SkipTLSVerify":false}}}}}}"#
            );
            fs::write(meta.join("meta.json"), text).unwrap();
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), config).unwrap();
        Self(path)
    }

    fn address(&self, chosen: Option<&str>) -> Result<Option<String>, String> {
        address(|name| match name {
            "DOCKER_CONFIG" => Some(self.0.display().to_string()),
            "DOCKER_CONTEXT" => chosen.map(str::to_owned),
            _ => None,
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_variable_chooses_a_context_before_the_configuration_does() {
    let contexts = [("one", "unix:///one.sock"), ("two", "unix:///two.sock")];
    let docker = Directory::new("chosen", r#"{"currentContext":"one","auths":{}}"#, &contexts);
    assert_eq!(docker.address(None), Ok(Some("unix:///one.sock".to_owned())));
    assert_eq!(docker.address(Some("two")), Ok(Some("unix:///two.sock".to_owned())));
    assert_eq!(docker.address(Some("default")), Ok(None));
}

#[test]
fn without_a_choice_the_usual_sockets_are_tried() {
    for config in ["{}", r#"{"currentContext":"default"}"#, "no json"] {
        assert_eq!(Directory::new("none", config, &[]).address(None), Ok(None), "{config}");
    }
    assert_eq!(address(|_| None), Ok(None));
    let home = |name: &str| (name == "HOME").then(|| "/nonexistent".to_owned());
    assert_eq!(address(home), Ok(None));
}

#[test]
fn a_context_that_cannot_be_used_is_an_error_that_says_who_chose_it() {
    let docker = Directory::new("broken", r#"{"currentContext":"gone"}"#, &[("empty", "")]);
    let refused = docker.address(None).unwrap_err();
    assert!(refused.contains("`gone`") && refused.contains("config.json"), "{refused}");
    let refused = docker.address(Some("empty")).unwrap_err();
    assert!(refused.contains("DOCKER_CONTEXT") && refused.contains("no address"), "{refused}");
}
