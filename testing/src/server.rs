//! What is under test: a policy, a handler, a disk and the rules. Peers and worlds are made of it.

use std::rc::Rc;

use sanserve_core::{Call, Config, DefaultPolicy, Handler, Policy, Reply};
use sanserve_transcript::{Settings, Transcript};

use super::disk::Disk;
use super::judge::Wrong;

type Rule<'s> = Rc<dyn Fn(&Transcript) -> Result<(), String> + 's>;
type MakeHandler<'s> = Rc<dyn Fn() -> Box<dyn Handler + 's> + 's>;

/// A server that exists only in memory: your policy, your portable handler, a virtual disk. It listens
/// nowhere; whoever connects is a [`Peer`](super::Peer) or a client of a [`World`](super::World).
///
/// ```
/// use sanserve_testing::{Disk, Server};
/// use sanserve_core::{Call, Reply, StatusCode};
///
/// let hello = |call: Call, reply: &mut Reply<'_>| {
///     if call == Call::Request {
///         reply.answer(StatusCode::OK, "text/plain", "hello\n").unwrap();
///     }
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
    /// What transcripts call policy and handler.
    pub(super) name: Rc<str>,
    /// What must hold of a whole history, too.
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
    /// With an empty disk, no handler, and the defaults of [`Config`].
    #[must_use]
    pub fn new() -> Server<'s> {
        Server::default()
    }

    /// With this policy. Default: [`DefaultPolicy`].
    #[must_use]
    pub fn policy(self, policy: impl Policy + 's) -> Server<'s> {
        Server { policy: Rc::new(policy), ..self }
    }

    /// With a handler for each connection. As on the frontends, requests go to it unless the policy says
    /// otherwise.
    #[must_use]
    pub fn handler<H: Handler + 's>(mut self, make: impl Fn() -> H + 's) -> Server<'s> {
        Rc::make_mut(&mut self.config).handled = true;
        Server { handler: Some(Rc::new(move || Box::new(make()))), ..self }
    }

    /// With these files. Default: an empty root.
    #[must_use]
    pub fn disk(self, disk: Disk) -> Server<'s> {
        Server { disk: Rc::new(disk), ..self }
    }

    /// With these rules. Whether there is a handler is known already. Default: those of [`Config`].
    #[must_use]
    pub fn config(self, config: Config) -> Server<'s> {
        let handled = self.handler.is_some() || config.handled;
        Server { config: Rc::new(config.with_handled(handled)), ..self }
    }

    /// What transcripts call its policy and handler: the value of the setting `site`. Default: `plain`.
    #[must_use]
    pub fn named(self, name: &str) -> Server<'s> {
        Server { name: name.into(), ..self }
    }

    /// With a rule of your own: what must hold of the whole history of each connection of a [`World`](super::World), and
    /// of what [`replay`](Server::replay) plays, beside what is checked anyway. `Err` says how it is broken; the history
    /// is then made as short as it can be, as for any other rule. Of a `send` that was not taken whole it has what was
    /// taken. Default: none.
    #[must_use]
    pub fn rule(self, rule: impl Fn(&Transcript) -> Result<(), String> + 's) -> Server<'s> {
        Server { rule: Some(Rc::new(rule)), ..self }
    }

    /// The same server by exactly these rules.
    pub(super) fn with_rules(&self, config: Config) -> Server<'s> {
        Server { config: Rc::new(config), ..self.clone() }
    }

    /// Whether a history breaks the rule of the server's own.
    pub(super) fn breaks_rule(&self, transcript: &Transcript) -> Option<Wrong> {
        let rule = self.rule.as_ref()?;
        rule(transcript).err().map(|what| Wrong::new("rule", what))
    }

    /// The settings of its transcripts.
    pub(super) fn settings(&self) -> Settings {
        Settings::default().with_config((*self.config).clone()).with_site(self.name.as_ref())
    }

    pub(super) fn make_handler(&self) -> Box<dyn Handler + 's> {
        match &self.handler {
            Some(make) => make(),
            None => Box::new(|_: Call, _: &mut Reply<'_>| {}),
        }
    }

    pub(super) fn is_handled(&self) -> bool {
        self.handler.is_some()
    }
}
