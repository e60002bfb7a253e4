//! An extension that keeps what it is sent, and does what the query asks for.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use gofer_core::{Core, CoreBuilder, ExternalEventLimits, Installed};
use gofer_sdk::{Error, ErrorKind, Extension, ExternalEvent, Gofer, NoParams, Result};
use ring::digest::{SHA256, digest};
use tokio::sync::{Notify, Semaphore};

/// The inboxes of this process's tests.
static ALL: LazyLock<Mutex<HashMap<String, Arc<Inbox>>>> = LazyLock::new(Mutex::default);

/// What has arrived at one extension.
pub struct Inbox {
    /// Raw requests, where they are small.
    raw: Mutex<Vec<Vec<u8>>>,
    /// How often each `X-Id` came, in full: with the digest that it should have.
    whole: Mutex<HashMap<String, usize>>,
    begun: Mutex<usize>,
    arrived: Notify,
    go_on: Semaphore,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            raw: Mutex::default(),
            whole: Mutex::default(),
            begun: Mutex::default(),
            arrived: Notify::new(),
            go_on: Semaphore::new(0),
        }
    }
}

impl Inbox {
    pub fn raw(&self) -> Vec<String> {
        let raw = self.raw.lock().unwrap();
        raw.iter().map(|raw| String::from_utf8_lossy(raw).into_owned()).collect()
    }

    pub fn whole(&self) -> HashMap<String, usize> {
        self.whole.lock().unwrap().clone()
    }

    /// Waits until so many events have begun.
    pub async fn begun(&self, count: usize) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if *self.begun.lock().unwrap() >= count {
                return;
            }
            arrived.await;
        }
    }

    /// Lets so many events go on that were asked to hang.
    pub fn release(&self, count: usize) {
        self.go_on.add_permits(count);
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Config {
    /// Where this extension keeps what it is sent.
    inbox: String,
}

pub struct Recorder(Arc<Inbox>);

impl Extension for Recorder {
    type Config = Config;
    type Params = NoParams;

    async fn init(config: Config, _: Gofer) -> Result<Self> {
        Ok(Self(Arc::clone(ALL.lock().unwrap().entry(config.inbox).or_default())))
    }

    async fn external_event(&self, event: ExternalEvent) -> Result<()> {
        *self.0.begun.lock().unwrap() += 1;
        self.0.arrived.notify_waiters();
        match event.query() {
            Some("hang") => self.0.go_on.acquire().await?.forget(),
            Some("panic") => panic!("on purpose, with hunter2"),
            Some("refuse") => return Err(Error::invalid_parameter("hunter2", "is not right")),
            Some("fail") => return Err(Error::internal("hunter2")),
            Some("not-found") => return Err(Error::new(ErrorKind::NotFound, "hunter2")),
            Some("full") => return Err(Error::new(ErrorKind::ResourceExhausted, "hunter2")),
            Some("later") => return Err(Error::unavailable("hunter2")),
            _ => {}
        }
        if event.payload().len() < 4096 {
            self.0.raw.lock().unwrap().push(event.payload().to_vec());
        }
        if let Some(id) = event.header("x-id") {
            let is = hex(event.body());
            assert_eq!(event.header("x-digest"), Some(&*is), "the body of {id} is another one");
            *self.0.whole.lock().unwrap().entry(id.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

/// The digest of a body, as text.
pub fn hex(bytes: &[u8]) -> String {
    format!("{:?}", digest(&SHA256, bytes))
}

/// A core that takes external events, with extensions that record them.
pub struct Setup {
    pub core: Core,
    pub address: std::net::SocketAddr,
}

impl Setup {
    pub async fn start(limits: ExternalEventLimits) -> Self {
        Self::of(Core::builder().external_event_limits(limits)).await
    }

    pub async fn of(builder: CoreBuilder) -> Self {
        let core = builder.external_events(([127, 0, 0, 1], 0)).start().await.unwrap();
        let address = core.external_events_address().unwrap();
        Self { core, address }
    }

    /// Installs an extension; its inbox is its own, whatever other tests do.
    pub async fn install(&self, name: &str) -> (Installed, Arc<Inbox>) {
        let own = format!("{}/{name}", self.address);
        let installed = self.core.install::<Recorder>(name, [("inbox", own.as_str())]).await;
        let inbox = Arc::clone(ALL.lock().unwrap().get(&own).unwrap());
        (installed.unwrap(), inbox)
    }
}
