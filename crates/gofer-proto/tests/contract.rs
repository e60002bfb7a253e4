//! Keeps the `.proto` files, the generated code and Gofer's contract in agreement.
//!
//! Two promises, checked apart from each other:
//!
//! - The generated files in `src/` are what the `.proto` files in the workspace's `proto/`
//!   generate. `UPDATE_PROTO=1 cargo test -p gofer-proto` makes them so.
//! - The `.proto` files match the contract. `tests/contract.txt` lists each method, field and enum
//!   value of the contract, was not derived from the `.proto` files, and no command rewrites it: a
//!   difference is an incompatibility with Gofer's servers and never an update to accept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "what fails here fails a test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use protox::Compiler;
use protox::prost::Message as _;
use protox::prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor,
};

const UPDATE: &str = "UPDATE_PROTO=1 cargo test -p gofer-proto";

/// The files that define the services; the others are imported by them.
const ROOTS: [&str; 2] = ["gofer.proto", "extension.proto"];

/// What the embedded core has in addition to Gofer's API; no part of the contract.
const EMBEDDED: &str = "embedded_core.proto";

/// What the SDK's extensions have in addition to the contract.
const STATUS: &str = "extension_status.proto";

/// Fields that may be large: as `Bytes`, a received one shares the memory it was read into.
const BYTES: [&str; 5] = [
    ".proto.ExtensionExternalEventRequest.payload",
    ".proto.GetPipelineObjectResponse.content",
    ".proto.PutPipelineObjectRequest.content",
    ".proto.GetRunObjectResponse.content",
    ".proto.PutRunObjectRequest.content",
];

#[test]
fn the_generated_files_are_what_the_proto_files_generate() {
    let update = std::env::var_os("UPDATE_PROTO").is_some_and(|value| value == "1");
    let stale: Vec<_> = generate()
        .into_iter()
        .filter(|(path, expected)| fs::read(path).ok().as_ref() != Some(expected))
        .collect();

    if update {
        for (path, expected) in stale {
            fs::write(path, expected).unwrap();
        }
        return;
    }
    let stale: Vec<_> = stale.into_iter().map(|(path, _)| path).collect();
    assert!(
        stale.is_empty(),
        "not what the .proto files generate: {stale:?}. To generate them again: {UPDATE}"
    );
}

#[test]
fn the_proto_files_match_the_contract() {
    let contract = fs::read_to_string(package().join("tests/contract.txt")).unwrap();
    let contract: BTreeSet<_> = contract
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let ours: BTreeSet<_> = listing(&pool()).into_iter().collect();

    let missing: Vec<_> = contract.difference(&ours).collect();
    let surplus: Vec<_> = ours.difference(&contract).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "the .proto files would not be understood by Gofer.\n\
         in the contract only: {missing:#?}\nin the .proto files only: {surplus:#?}"
    );
}

#[test]
fn the_services_have_as_many_methods_as_gofers() {
    assert_eq!(service("Gofer").methods().len(), 71);
    assert_eq!(service("ExtensionService").methods().len(), 8);
}

#[test]
fn only_conversations_attachments_logs_and_events_are_streamed() {
    let streams = |service: &ServiceDescriptor| -> Vec<_> {
        service
            .methods()
            .filter(|method| method.is_client_streaming() || method.is_server_streaming())
            .map(|method| {
                let kind = (method.is_client_streaming(), method.is_server_streaming());
                (method.name().to_owned(), kind)
            })
            .collect()
    };
    let (both_ways, to_the_client) = ((true, true), (false, true));

    assert_eq!(
        streams(&service("Gofer")),
        [
            ("AttachToTaskRun".to_owned(), both_ways),
            ("GetTaskRunLogs".to_owned(), to_the_client),
            ("RunExtensionInstaller".to_owned(), both_ways),
            ("RunPipelineConfigurator".to_owned(), both_ways),
            ("ListEvents".to_owned(), to_the_client),
        ]
    );
    assert_eq!(
        streams(&service("ExtensionService")),
        [
            ("RunExtensionInstaller".to_owned(), both_ways),
            ("RunPipelineConfigurator".to_owned(), both_ways),
        ]
    );
}

/// What the generated files must contain: their paths and contents.
fn generate() -> [(PathBuf, Vec<u8>); 5] {
    let mut descriptors = compiler(&ROOTS).file_descriptor_set();
    let embedded = compiler(&[EMBEDDED]).file_descriptor_set();
    let mut status = compiler(&[STATUS]).file_descriptor_set();

    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proto");
    fs::create_dir_all(&out).unwrap();
    let builder = || {
        BYTES
            .into_iter()
            .fold(tonic_prost_build::configure(), tonic_prost_build::Builder::bytes)
            .build_transport(false)
            .emit_rerun_if_changed(false)
            .out_dir(&out)
    };
    let code = |package| fs::read(out.join(format!("{package}.rs"))).unwrap();
    // Its messages may have some of the contract's in them.
    builder().extern_path(".proto", "crate::contract").compile_fds(embedded).unwrap();
    builder().build_server(false).compile_fds(descriptors.clone()).unwrap();
    let contract = code("proto");
    // The servers alone: their messages are those of the contract.
    builder()
        .build_client(false)
        .extern_path(".proto", "crate::contract")
        .compile_fds(descriptors.clone())
        .unwrap();
    let server = code("proto");

    // Comments are the greater part of a descriptor and of no use to reflection.
    for file in descriptors.file.iter_mut().chain(&mut status.file) {
        file.source_code_info = None;
    }

    let checked_in = package().join("src");
    [
        (checked_in.join("contract.rs"), contract),
        (checked_in.join("server.rs"), server),
        (checked_in.join("embedded.rs"), code("gofer_sdk.embedded")),
        (checked_in.join("descriptor.bin"), descriptors.encode_to_vec()),
        (checked_in.join("extension_status.bin"), status.encode_to_vec()),
    ]
}

fn compiler(roots: &[&str]) -> Compiler {
    let mut compiler = Compiler::new([package().join("../../proto")]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_files(roots).unwrap();
    compiler
}

fn pool() -> DescriptorPool {
    compiler(&ROOTS).descriptor_pool()
}

fn service(name: &str) -> ServiceDescriptor {
    pool().get_service_by_name(&format!("proto.{name}")).unwrap()
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is on the wire, a line each, in the form of `contract.txt`.
fn listing(pool: &DescriptorPool) -> Vec<String> {
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let messages = pool.all_messages().filter(|message| !message.is_map_entry());

    methods
        .map(|method| method_line(&method))
        .chain(messages.flat_map(|message| message_lines(&message)))
        .chain(pool.all_enums().flat_map(|enumeration| value_lines(&enumeration)))
        .collect()
}

fn method_line(method: &MethodDescriptor) -> String {
    let side = |streams: bool, message: &MessageDescriptor| {
        let stream = if streams { "stream " } else { "" };
        format!("({stream}{})", local(message.full_name()))
    };
    format!(
        "method {} {} returns {}",
        local(method.full_name()),
        side(method.is_client_streaming(), &method.input()),
        side(method.is_server_streaming(), &method.output()),
    )
}

fn message_lines(message: &MessageDescriptor) -> Vec<String> {
    let name = local(message.full_name());
    let fields = message.fields().map(|field| {
        let oneof = field.containing_oneof().map(|oneof| format!(" oneof {}", oneof.name()));
        let (number, ty) = (field.number(), field_type(&field));
        format!("field {name} {number} {} {ty}{}", field.name(), oneof.unwrap_or_default())
    });
    std::iter::once(format!("message {name}")).chain(fields).collect()
}

fn value_lines(enumeration: &EnumDescriptor) -> Vec<String> {
    let name = local(enumeration.full_name());
    enumeration
        .values()
        .map(|value| format!("value {name} {} {}", value.number(), value.name()))
        .collect()
}

fn field_type(field: &FieldDescriptor) -> String {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let side = |field: FieldDescriptor| kind_name(&field.kind());
        return format!(
            "map<{},{}>",
            side(entry.map_entry_key_field()),
            side(entry.map_entry_value_field())
        );
    }
    let kind = kind_name(&field.kind());
    match field.cardinality() {
        Cardinality::Repeated => format!("repeated {kind}"),
        Cardinality::Optional | Cardinality::Required => kind,
    }
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => local(message.full_name()).to_owned(),
        Kind::Enum(enumeration) => local(enumeration.full_name()).to_owned(),
        scalar => format!("{scalar:?}"),
    }
}

/// A name without the package, as the contract gives it.
fn local(full_name: &str) -> &str {
    full_name.strip_prefix("proto.").unwrap()
}
