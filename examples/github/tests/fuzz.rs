//! Anything at all may be posted to the extension: nothing makes it panic, only what is signed
//! with the secret runs a pipeline, and that runs the right one.
//!
//! `cargo test` tries for a second or two. For longer, with as many inputs as fit:
//!
//! ```sh
//! BOLERO_RANDOM_TEST_TIME_MS=3600000 cargo test --release -p github --test fuzz
//! ```
//!
//! A failure prints `BOLERO_RANDOM_SEED`, which repeats it. With `cargo bolero` the same tests run
//! under a fuzzer that is guided by coverage.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

#[path = "../github.rs"]
mod github;

use std::sync::{Mutex, PoisonError};

use bolero::{TypeGenerator, check};
use github::Github;
use github::events::EVENTS;
use gofer_core::{Core, Installed};
use gofer_sdk::{ErrorKind, ExternalEvent};
use ring::hmac;
use tokio::runtime::{Builder, Runtime};

const SECRET: &str = "It's a Secret to Everybody";
const KEY: &str = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo=";

/// Payloads with all that is read, and some that is not.
const PAYLOADS: [&str; 4] = [
    r#"{"ref":"refs/heads/main","head_commit":{"id":"c0ffee","author":{"name":"Mona \u00e9","email":"m@x.org","username":"mona"},"committer":{"name":"GitHub","email":"n@x.org","username":"web-flow"}},"commits":[{"id":1}],"repository":{"full_name":"tea/kettle","id":1},"sender":{"login":"mona"}}"#,
    r#"{"action":"opened","pull_request":{"head":{"ref":"tea","sha":"c0ffee"},"user":{"login":"mona","email":null,"name":"Mona"}},"repository":{"full_name":"tea/kettle"},"sender":{"login":"mona"}}"#,
    r#"{"action":"published","release":{"tag_name":"v1","target_commitish":"main","author":{"login":"mona"},"created_at":"2024-05-01T10:00:00Z","published_at":null},"repository":{"full_name":"tea/kettle"},"sender":{"login":"mona"}}"#,
    r#"{"ref":"v1","ref_type":"tag","repository":{"full_name":"TEA/Kettle"},"sender":{"login":"mona"}}"#,
];

/// What a mutation puts into a payload.
const TOKENS: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "1e999",
    "-0",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\"repository\":{\"full_name\":\"tea/kettle\"},",
    "\"head_commit\":null,",
    "\"action\":\"did\",",
];

#[derive(Debug, TypeGenerator)]
enum Mutation {
    Set { at: u16, byte: u8 },
    Remove { at: u16, count: u8 },
    Insert { at: u16, token: u8 },
    Repeat { at: u16, token: u8, times: u8 },
    Cut { at: u16 },
}

#[derive(Debug, TypeGenerator)]
struct Body {
    kind: u8,
    payload: u8,
    mutations: [Mutation; 4],
    any: Vec<u8>,
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        // Most are still JSON.
        let count = match self.kind {
            0..64 => 0,
            64..160 => 1,
            160..208 => 2,
            208..240 => self.mutations.len(),
            240.. => return self.any.clone(),
        };
        let payload = PAYLOADS[usize::from(self.payload) % PAYLOADS.len()];
        let mut bytes = payload.as_bytes().to_vec();
        for mutation in &self.mutations[..count] {
            let place = |at: u16| usize::from(at) % (bytes.len() + 1);
            let token = |token: u8| TOKENS[usize::from(token) % TOKENS.len()];
            match *mutation {
                Mutation::Set { at, byte } => {
                    let at = place(at);
                    bytes.splice(at..(at + 1).min(bytes.len()), [byte]);
                }
                Mutation::Remove { at, count } => {
                    let at = place(at);
                    bytes.drain(at..(at + usize::from(count)).min(bytes.len()));
                }
                Mutation::Insert { at, token: it } => {
                    let at = place(at);
                    bytes.splice(at..at, token(it).bytes());
                }
                Mutation::Repeat { at, token: it, times } => {
                    let at = place(at);
                    bytes.splice(at..at, token(it).repeat(usize::from(times)).bytes());
                }
                Mutation::Cut { at } => bytes.truncate(place(at)),
            }
        }
        bytes
    }
}

#[derive(Debug, TypeGenerator)]
struct Signature {
    kind: u8,
    digit: u8,
    any: Vec<u8>,
}

impl Signature {
    fn is_right(&self) -> bool {
        self.kind < 160
    }
}

#[derive(Debug, TypeGenerator)]
struct Header {
    kind: u8,
    which: u16,
    any: Vec<u8>,
}

impl Header {
    /// What a header has; never a line break, which would end it.
    fn value(&self, known: impl FnOnce(usize) -> String) -> Option<Vec<u8>> {
        match self.kind {
            0..224 => Some(known(usize::from(self.which)).into_bytes()),
            224..240 => Some(text(&self.any)),
            240.. => None,
        }
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| is_text(*byte)).collect()
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[derive(Debug, TypeGenerator)]
struct Request {
    event: Header,
    delivery: Header,
    content_type: Header,
    signature: Signature,
    body: Body,
}

fn sign(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    format!("sha256={}", hex::encode(tag))
}

impl Request {
    fn signature(&self, body: &[u8]) -> Option<Vec<u8>> {
        let signature = &self.signature;
        let right = || sign(SECRET, body).into_bytes();
        Some(match signature.kind {
            _ if signature.is_right() => right(),
            0..176 => sign("hunter2", body).into_bytes(),
            176..192 => sign(SECRET, &[body, b" "].concat()).into_bytes(),
            192..224 => {
                let mut wrong = right();
                let digit = "sha256=".len() + usize::from(signature.digit) % 64;
                // From one digit to another, whichever it is.
                wrong[digit] = if wrong[digit] == b'0' { b'1' } else { b'0' };
                wrong
            }
            224..240 => text(&signature.any),
            240.. => return None,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let body = self.body.bytes();
        let names = ["push", "pull_request", "release", "create", "ping", "PUSH"];
        let event = self.event.value(|which| match which % 8 {
            0 => EVENTS[which % EVENTS.len()].to_owned(),
            _ => names[which % names.len()].to_owned(),
        });
        // Some come again.
        let delivery = self.delivery.value(|which| format!("{:x}", which % 4096));
        let types = ["application/json", "application/json; charset=utf-8", "Application/JSON"];
        let content_type = self.content_type.value(|which| types[which % types.len()].to_owned());
        let mut request = b"POST /external/github HTTP/1.1\r\n".to_vec();
        for (name, value) in [
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", delivery),
            ("Content-Type", content_type),
            ("X-Hub-Signature-256", self.signature(&body)),
        ] {
            if let Some(value) = value {
                request.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
            }
        }
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        request.extend(body);
        request
    }
}

/// A core with the extension and some subscriptions.
struct Setup {
    runtime: Runtime,
    core: Core,
    github: Installed,
}

const PIPELINES: [(&str, &str, &str); 5] = [
    ("default/push", "tea/kettle", "push"),
    ("default/pull_request", "tea/kettle", "pull_request"),
    ("default/release", "Tea/Kettle", "release/published"),
    ("default/create", "tea/kettle", "create"),
    ("default/other", "tea/pot", "push"),
];

impl Setup {
    fn new() -> Self {
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (core, github) = runtime.block_on(async {
            let core = Core::in_memory().await.unwrap();
            let config = [
                ("app_id", "1"),
                ("app_installation", "1"),
                ("app_key", KEY),
                ("app_webhook_secret", SECRET),
            ];
            let github = core.install::<Github>("github", config).await.unwrap();
            for (pipeline, repository, filter) in PIPELINES {
                let params = [("repository", repository), ("event_filter", filter)];
                github.subscribe(pipeline, "l", params).await.unwrap();
            }
            (core, github)
        });
        Self { runtime, core, github }
    }

    fn runs(&self) -> [usize; PIPELINES.len()] {
        PIPELINES.map(|(pipeline, _, _)| self.core.runs(pipeline).len())
    }
}

/// What has been tried so far.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    refused: u64,
    started: usize,
}

impl Tally {
    /// Sends a request, and checks what comes of it.
    fn send(&mut self, setup: &Setup, request: &Request) {
        let bytes = request.bytes();
        let before = setup.runs();
        let outcome = setup.runtime.block_on(setup.github.external_event(bytes.clone()));
        let is_signed = request.signature.is_right();
        match &outcome {
            Ok(()) => {
                self.accepted += 1;
                assert!(is_signed, "it was not signed");
            }
            Err(error) => {
                self.refused += 1;
                let expected = if is_signed {
                    ErrorKind::InvalidParameter
                } else {
                    ErrorKind::PermissionDenied
                };
                assert_eq!(error.kind(), expected, "{error:?}");
                assert!(!error.to_string().contains(SECRET), "{error:?}");
            }
        }
        let event = ExternalEvent::new(bytes).unwrap();
        let event = event.header("x-github-event").unwrap_or_default().to_ascii_lowercase();
        for (n, after) in setup.runs().into_iter().enumerate() {
            let (pipeline, _, filter) = PIPELINES[n];
            let new = after - before[n];
            assert!(new == 0 || outcome.is_ok(), "{pipeline}: a refused request started a run");
            let is_for_it = filter.split('/').next() == Some(&event);
            assert!(new == 0 || (new == 1 && is_for_it), "{pipeline}: {new} runs");
            for run in setup.core.runs(pipeline).iter().take(new) {
                self.started += 1;
                for (_, value) in run.variables() {
                    assert!(value.len() <= 4096 && !value.contains('\0'), "{value:?}");
                }
            }
        }
    }
}

/// A core's runs are counted after each request, so it should not have too many.
const REQUESTS_OF_A_CORE: u64 = 1000;

#[test]
fn a_request_runs_what_it_is_for_or_is_refused() {
    let state = Mutex::new((Setup::new(), Tally::default()));
    check!().with_type::<Request>().for_each(|request| {
        // Poisoned by a failure, which is then repeated to make the input smaller.
        let (setup, tally) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        if (tally.accepted + tally.refused + 1).is_multiple_of(REQUESTS_OF_A_CORE) {
            *setup = Setup::new();
        }
        tally.send(setup, request);
    });
    let (_, tally) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally:?}");
    // A seed that is repeated, or a machine that is very slow, tries few.
    assert!(tally.started > 0 || tally.accepted + tally.refused < 5000, "none started a run");
}

#[test]
fn no_setting_makes_it_panic() {
    check!().with_type::<(String, String)>().for_each(|(repository, filter)| {
        for text in [repository.as_str(), filter] {
            let repository = text.parse::<github::Repository>();
            let filter = text.parse::<github::EventFilter>();
            let nearest = github::events::nearest(text);
            assert!(nearest.is_none_or(|nearest| EVENTS.contains(&nearest)));
            if let Err(why) = repository {
                assert!(text.len() < 8 || !why.contains(text), "{why}");
            }
            if let Err(why) = filter {
                assert!(text.len() < 8 || !why.contains(text), "{why}");
            }
        }
    });
}
