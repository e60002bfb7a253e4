//! How the user who starts a core gets access to it, and nobody else does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::shell::Machine;
use gofer_core::Core;
use gofer_proto::{BootstrapTokenRequest, CreateTokenRequest, token::Kind};
use gofer_sdk::Gofer;

const START: &str = "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb\n\
                     Gofer listens on 127.0.0.1:8080.\n";
const KEPT: &str = "The first management token is in …cores.toml, for your commands.\n";

const STOP: &str = "^C\nStopped.\n";

/// What `token = "…"` says in `cores.toml`.
fn kept_tokens(machine: &Machine) -> Vec<String> {
    let text = fs::read_to_string(machine.file("cores.toml")).unwrap_or_default();
    let tokens = text.lines().filter_map(|line| line.strip_prefix("token = "));
    tokens.map(|token| token.trim_matches('"').to_owned()).collect()
}

#[test]
fn who_starts_a_core_types_nothing_and_everybody_else_is_refused() {
    let mut machine = Machine::new("access");
    machine.type_block(&format!(
        "{START}{KEPT}\
         $ gofer pipeline create nightly\nRegistered default/nightly, version 1.\n\
         $ gofer --address 127.0.0.1:8080 pipeline list\nnightly …\n\
         $ gofer config show\naddress 127.0.0.1:8080\ntoken (set)\n"
    ));
    let file = machine.file("cores.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!machine.file("config.toml").exists());
    let tokens = kept_tokens(&machine);
    assert_eq!(tokens.len(), 1);
    // Another user, who only reaches the port.
    fs::create_dir(machine.file("other")).unwrap();
    machine.type_block(
        "$ GOFER_CONFIG=other/config.toml gofer --address 127.0.0.1:8080 --ca gofer.redb.crt token \
         bootstrap\n\
         error: this core accepts no BootstrapToken here: …--allow-bootstrap…\nhint: …\n\
         $ echo $?\n4\n\
         $ GOFER_CONFIG=other/config.toml gofer --address 127.0.0.1:8080 --ca gofer.redb.crt \
         pipeline list\nerror: a token is required, and none is set\nhint: …\n\
         $ echo $?\n5\n\
         $ gofer extension install own exec:target/debug/examples/interval\n\
         error: …`gofer service start --allow-programs`…\n\
         $ echo $?\n4\n",
    );
    // The entry follows the store to its next address, which is another port here.
    machine.type_block(STOP);
    machine.type_block(&format!("{START}$ gofer pipeline list\nnightly …\n"));
    machine.type_block(STOP);
    assert_eq!(kept_tokens(&machine), tokens);
}

#[test]
fn the_token_is_not_printed() {
    let mut machine = Machine::new("unprinted");
    machine.type_block(&format!("{START}{KEPT}"));
    let shown = machine.core_output();
    for token in kept_tokens(&machine) {
        assert!(!shown.contains(&token), "{shown}");
    }
}

#[test]
fn a_configuration_for_another_server_is_neither_changed_nor_overridden() {
    let mut machine = Machine::new("configured");
    let theirs = "address = \"gofer.example.com:443\"\ntoken = \"theirs\"\n";
    fs::write(machine.file("config.toml"), theirs).unwrap();
    machine.type_block(&format!(
        "{START}{KEPT}\
         They use gofer.example.com:443, which …config.toml or the environment sets: \
         `--address 127.0.0.1:8080` is this core.\n\
         $ gofer config show\naddress gofer.example.com:443\n\
         $ gofer --address 127.0.0.1:8080 pipeline create nightly\n\
         Registered default/nightly, version 1.\n"
    ));
    assert_eq!(fs::read_to_string(machine.file("config.toml")).unwrap(), theirs);
}

#[test]
fn a_token_in_the_environment_goes_to_the_core_that_was_started() {
    let mut machine = Machine::new("environment");
    machine.type_block(&format!(
        "{START}{KEPT}\
         $ gofer token create client --for 'ops.*' > ops.txt\n\
         $ GOFER_TOKEN=$(cat ops.txt) gofer pipeline list --namespace default\n\
         error: the token gives no access to the namespace `default`\nhint: …\n"
    ));
}

#[test]
fn a_core_in_memory_is_forgotten_when_it_stops() {
    let mut machine = Machine::new("memory");
    machine.type_block(&format!(
        "$ gofer service start --listen 127.0.0.1:8080 --in-memory\n\
         Gofer listens on 127.0.0.1:8080.\n{KEPT}\
         $ gofer pipeline create nightly\nRegistered default/nightly, version 1.\n"
    ));
    assert_eq!(kept_tokens(&machine).len(), 1);
    machine.type_block(STOP);
    assert_eq!(kept_tokens(&machine), [""; 0]);
}

#[test]
fn with_a_flag_the_first_caller_gets_the_first_token() {
    let mut machine = Machine::new("bootstrap");
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb --allow-bootstrap\n\
         Gofer listens on 127.0.0.1:8080.\n\
         There is no token yet. Whoever runs this first has the first one:\n\
         gofer --address 127.0.0.1:8080 --ca …gofer.redb.crt token bootstrap --save\n\
         $ gofer pipeline list\nerror: …\nhint: …\n\
         $ gofer --address 127.0.0.1:8080 --ca gofer.redb.crt token bootstrap --save\n\
         Logged in to 127.0.0.1:8080. The token is saved in …config.toml.\n\
         $ gofer pipeline create nightly\nRegistered default/nightly, version 1.\n\
         $ gofer --address 127.0.0.1:8080 --ca gofer.redb.crt token bootstrap\n\
         error: the first token has already been made; …\nhint: …\n",
    );
    assert!(!machine.file("cores.toml").exists());
}

#[test]
fn a_core_whose_token_cannot_be_kept_starts_and_prints_one_if_asked() {
    let mut machine = Machine::new("unkept");
    // The directory of the configuration file cannot be made.
    fs::write(machine.file("file"), "").unwrap();
    machine.set("GOFER_CONFIG", "file/config.toml");
    let problem = "The first management token could not be kept: …--new-token.\n";
    // It has still to be made at the second start.
    for _ in 0..2 {
        machine.type_block(&format!("{START}{problem}"));
        let shown = machine.core_output();
        assert!(!shown.contains("bootstrap"), "it is refused:\n{shown}");
        machine.type_block(STOP);
    }
    let line = "gofer service start --listen 127.0.0.1:0 --store gofer.redb --json";
    let shown = machine.shown_until(line, "--new-token");
    assert!(!shown.contains("bootstrap"), "it is refused:\n{shown}");
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb --new-token\n\
         Gofer listens on 127.0.0.1:8080.\nNew management token, shown only once: …\n",
    );
    machine.type_block(STOP);
    machine.type_block(START);
    assert!(!machine.core_output().contains("could not be kept"), "one was made by then");
}

#[test]
fn a_core_starts_if_somebody_keeps_the_directory_locked() {
    let mut machine = Machine::new("locked");
    // Other users may open it as well.
    let directory = fs::File::open(machine.file("")).unwrap();
    directory.lock().unwrap();
    machine.type_block(&format!("{START}{KEPT}"));
    assert_eq!(kept_tokens(&machine).len(), 1);
}

#[test]
fn a_broken_file_of_cores_stops_only_commands_that_need_it() {
    let mut machine = Machine::new("broken");
    machine.type_block(&format!("{START}{KEPT}"));
    fs::write(machine.file("token.txt"), kept_tokens(&machine).concat()).unwrap();
    let list = "gofer --address 127.0.0.1:8080 --ca gofer.redb.crt pipeline list";
    let file = machine.file("cores.toml");
    fs::write(&file, "core = 1").unwrap();
    machine.type_block(&format!(
        "$ GOFER_TOKEN=$(cat token.txt) {list}\nThe namespace default has no pipelines; …\n\
         $ {list}\nerror: `…cores.toml` is invalid …\nhint: …\n\
         $ GOFER_TOKEN=$(cat token.txt) gofer pipeline list\nerror: `…cores.toml` is invalid …\n\
         $ gofer --address 127.0.0.1:8080 --ca gofer.redb.crt token bootstrap\n\
         error: this core accepts no BootstrapToken here: …\n\
         $ gofer config set address 127.0.0.1:8080\nWrote …\n\
         $ gofer config set token - < token.txt\nWrote …\n\
         $ gofer config set ca gofer.redb.crt\nWrote …\n"
    ));
    for is_readable in [true, false] {
        if !is_readable {
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
        }
        machine.type_block(
            "$ gofer pipeline list\nThe namespace default has no pipelines; …\n\
             $ gofer --address 127.0.0.1:1 pipeline list\nerror: …cores.toml…\n",
        );
    }
}

/// Replaces the certificate in `cores.toml`.
fn replace_certificate(machine: &Machine, pem: &str) {
    let file = machine.file("cores.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, _) = text.split_once("certificate = ").unwrap();
    fs::write(&file, format!("{before}certificate = \"\"\"\n{pem}\"\"\"\n")).unwrap();
}

const REFUSED: &str = "error: 127.0.0.1:8080 is not the core that you started there: …\n\
                       hint: …GOFER_TOKEN\n$ echo $?\n6\n";

#[test]
fn the_first_token_goes_only_to_the_core_that_was_started() {
    let mut machine = Machine::new("pinned");
    machine.type_block(&format!("{START}{KEPT}"));
    fs::write(machine.file("token.txt"), kept_tokens(&machine).concat()).unwrap();
    let list = "gofer --address 127.0.0.1:8080 pipeline list\n";
    machine.type_block(&format!(
        "$ GOFER_SKIP_TLS_VERIFY=true {list}The namespace default has no pipelines; …\n"
    ));
    // As if another server were there, with a certificate that everybody trusts.
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    replace_certificate(&machine, &other.cert.pem());
    for trust in [
        "GOFER_SKIP_TLS_VERIFY=true",
        "GOFER_CA=gofer.redb.crt",
        "SSL_CERT_FILE=gofer.redb.crt",
        "GOFER_CONFIG=./config.toml",
    ] {
        machine.type_block(&format!("$ {trust} {list}{REFUSED}"));
    }
    machine.type_block(&format!(
        "$ GOFER_TOKEN=$(cat token.txt) GOFER_CA=gofer.redb.crt {list}The namespace default has no pipelines; …\n\
         $ gofer --skip-tls-verify config show\nskip_tls_verify false\n"
    ));
}

#[test]
fn a_certificate_of_an_authority_is_trusted_itself_and_its_authority_is_not() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut machine = Machine::new("authority");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem() + &authority, key.serialize_pem())
    };
    // It is not for the address that the user of the machine has.
    for name in ["gofer.example.com", "127.0.0.1"] {
        let (chain, key) = issue(name);
        fs::write(machine.file("tls.crt"), chain).unwrap();
        fs::write(machine.file("tls.key"), key).unwrap();
        machine.type_block(
            "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb --tls-cert tls.crt \
             --tls-key tls.key\nGofer listens on 127.0.0.1:8080.\n\
             $ gofer pipeline list\nThe namespace default has no pipelines; …\n",
        );
        let (other, _) = issue(name);
        replace_certificate(&machine, &other);
        machine.type_block(&format!("$ gofer pipeline list\n{REFUSED}"));
        machine.type_block(STOP);
    }
}

/// A store as an older version left it, whose first token was made by a call or has yet to be.
async fn older(store: &Path, is_bootstrapped: bool) -> String {
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).store(store).allow_bootstrap();
    let core = core.start().await.unwrap();
    let request = CreateTokenRequest {
        kind: Kind::Management.into(),
        expires: "24h".to_owned(),
        ..Default::default()
    };
    let mut token = core.client().api().create_token(request).await.unwrap().into_inner().token;
    if is_bootstrapped {
        let address = core.address().unwrap().to_string();
        let gofer = Gofer::builder(address).ca_certificate(core.certificate()).build().unwrap();
        let made = gofer.api().bootstrap_token(BootstrapTokenRequest {}).await.unwrap();
        token = made.into_inner().token;
    }
    core.stop().await;
    token
}

#[test]
fn stores_of_older_versions_open_whether_their_first_token_was_made_or_not() {
    for is_bootstrapped in [true, false] {
        let mut machine = Machine::new(&format!("older-{is_bootstrapped}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let token = runtime.block_on(older(&machine.file("gofer.redb"), is_bootstrapped));
        fs::write(machine.file("token.txt"), token).unwrap();
        machine.type_block(START);
        assert_eq!(kept_tokens(&machine).len(), usize::from(!is_bootstrapped));
        machine.type_block(
            "$ GOFER_TOKEN=$(cat token.txt) gofer --address 127.0.0.1:8080 --ca gofer.redb.crt \
             pipeline create nightly\nRegistered default/nightly, version 1.\n",
        );
    }
}
