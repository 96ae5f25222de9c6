//! The server under test: a policy, a handler, a disk and a configuration. Peers and worlds connect to it.

use std::rc::Rc;

use sanserve_core::{Call, Config, DefaultPolicy, Handler, Policy, Reply};
use sanserve_transcript::{Settings, Transcript};

use super::disk::Disk;
use super::judge::Wrong;

type Rule<'s> = Rc<dyn Fn(&Transcript) -> Result<(), String> + 's>;
type MakeHandler<'s> = Rc<dyn Fn() -> Box<dyn Handler + 's> + 's>;

/// A virtual server: your policy, your portable handler, a virtual disk. It has no sockets; its clients are
/// [`Peer`](super::Peer)s or those of a [`World`](super::World).
///
/// ```
/// use sanserve_testing::{Disk, Server};
/// use sanserve_core::{Call, Reply, StatusCode};
///
/// let hello = |call: Call, reply: &mut Reply<'_>| {
///     if call == Call::Request {
///         reply.answer(StatusCode::OK, "text/plain", "hello\n")?;
///     }
///     Ok(())
/// };
/// let server = Server::new().handler(|| hello).disk(Disk::new().file("a.txt", "unused"));
/// server.connect().send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect_answer(200, "hello\n");
/// ```
#[derive(Clone)]
pub struct Server<'s> {
    pub(super) config: Rc<Config>,
    pub(super) policy: Rc<dyn Policy + 's>,
    handler: Option<MakeHandler<'s>>,
    pub(super) disk: Rc<Disk>,
    /// The name of policy and handler in transcripts.
    pub(super) name: Rc<str>,
    /// An additional rule for complete histories.
    pub(super) rule: Option<Rule<'s>>,
}

impl Default for Server<'_> {
    fn default() -> Self {
        Server {
            config: Rc::default(),
            policy: Rc::new(DefaultPolicy),
            handler: None,
            disk: Rc::new(Disk::new()),
            name: "plain".into(),
            rule: None,
        }
    }
}

impl<'s> Server<'s> {
    /// Creates a server with an empty disk, no handler, and the default [`Config`].
    #[must_use]
    pub fn new() -> Server<'s> {
        Server::default()
    }

    /// Sets the policy. Default: [`DefaultPolicy`].
    #[must_use]
    pub fn policy(self, policy: impl Policy + 's) -> Server<'s> {
        Server { policy: Rc::new(policy), ..self }
    }

    /// Sets the handler; `make` is called for each connection. As on the frontends, requests go to it unless the policy
    /// decides otherwise.
    #[must_use]
    pub fn handler<H: Handler + 's>(mut self, make: impl Fn() -> H + 's) -> Server<'s> {
        Rc::make_mut(&mut self.config).handled = true;
        Server { handler: Some(Rc::new(move || Box::new(make()))), ..self }
    }

    /// Sets the disk. Default: an empty root.
    #[must_use]
    pub fn disk(self, disk: Disk) -> Server<'s> {
        Server { disk: Rc::new(disk), ..self }
    }

    /// Sets the configuration, except for whether there is a handler. Default: [`Config::default`].
    #[must_use]
    pub fn config(self, config: Config) -> Server<'s> {
        let handled = self.handler.is_some() || config.handled;
        Server { config: Rc::new(config.with_handled(handled)), ..self }
    }

    /// Sets the name of policy and handler in transcripts, which is the value of the setting `site`. Default: `plain`.
    #[must_use]
    pub fn named(self, name: &str) -> Server<'s> {
        Server { name: name.into(), ..self }
    }

    /// Adds a rule for the complete history of each connection of a [`World`](super::World), and of what
    /// [`replay`](Server::replay) returns. `Err` contains a description of the error; the history is then minimized, as
    /// for any other rule. Of a `send` that was not accepted completely, the history only has the accepted bytes.
    /// Default: none.
    #[must_use]
    pub fn rule(self, rule: impl Fn(&Transcript) -> Result<(), String> + 's) -> Server<'s> {
        Server { rule: Some(Rc::new(rule)), ..self }
    }

    /// The same server with exactly this configuration.
    pub(super) fn with_rules(&self, config: Config) -> Server<'s> {
        Server { config: Rc::new(config), ..self.clone() }
    }

    /// Whether a history breaks the additional rule.
    pub(super) fn breaks_rule(&self, transcript: &Transcript) -> Option<Wrong> {
        let rule = self.rule.as_ref()?;
        rule(transcript).err().map(|what| Wrong::new("rule", what))
    }

    /// The settings of transcripts.
    pub(super) fn settings(&self) -> Settings {
        Settings::default().with_config((*self.config).clone()).with_site(self.name.as_ref())
    }

    pub(super) fn make_handler(&self) -> Box<dyn Handler + 's> {
        match &self.handler {
            Some(make) => make(),
            None => Box::new(|_: Call, _: &mut Reply<'_>| Ok(())),
        }
    }

    pub(super) fn is_handled(&self) -> bool {
        self.handler.is_some()
    }
}
