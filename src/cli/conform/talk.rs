//! One conversation: a server of one runtime, and a client that says what a peer has said.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sanserve::os::{Root, Symlinks};
use sanserve::server::{Log, Service};

use super::disk::Disk;
use super::plan::Plan;
use crate::cli::flags::Runtime;

/// A server that says nothing for so long is not waited for: what has come until then is what came.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that comes back from a fresh server.
pub(crate) fn talk(runtime: Runtime, plan: &Plan, disk: &Disk) -> io::Result<Vec<u8>> {
    disk.rewind()?;
    let root = Root::open(disk.root(), Symlinks::Follow)?;
    let service = Service::beneath(root).with_config(plan.settings.config.clone()).with_log(Log::to(io::sink()));
    let server = Running::start(runtime, service)?;
    let came = converse(server.address, plan);
    server.stop()?;
    came
}

fn converse(address: SocketAddr, plan: &Plan) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut writing = stream.try_clone()?;
    thread::scope(|scope| {
        // Apart from reading: neither side may wait for the other.
        let writer = scope.spawn(move || {
            // A server that has closed takes no more, and has said why.
            let _ = writing.write_all(&plan.input);
            if plan.eof {
                let _ = writing.shutdown(Shutdown::Write);
            }
        });
        let mut came = Vec::new();
        let mut writer = Some(writer);
        let mut room = vec![0; 1 << 16];
        loop {
            if !plan.eof
                && came.len() >= plan.until
                && let Some(writer) = writer.take()
            {
                let _ = writer.join();
                let _ = stream.shutdown(Shutdown::Write);
            }
            match stream.read(&mut room) {
                Ok(0) => return Ok(came),
                Ok(n) => came.extend_from_slice(&room[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It has closed with a reset, or hangs: both show in what came.
                Err(_) => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return Ok(came);
                }
            }
        }
    })
}

/// A server in a thread of its own.
struct Running {
    address: SocketAddr,
    thread: JoinHandle<io::Result<()>>,
    stop: Box<dyn FnOnce()>,
}

impl Running {
    fn start(runtime: Runtime, service: Service) -> io::Result<Running> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(match runtime {
            Runtime::Mio => {
                let server = sanserve::mio::Server::bind_with(free, service, 1)?;
                let (address, handle) = (server.local_addr(), server.handle());
                Running { address, thread: thread::spawn(move || server.run()), stop: Box::new(move || handle.stop()) }
            }
            Runtime::Std => {
                let server = sanserve::std::Server::bind(free, service)?;
                let (address, handle) = (server.local_addr(), server.handle());
                Running { address, thread: thread::spawn(move || server.run()), stop: Box::new(move || handle.stop()) }
            }
            Runtime::Smol => {
                let server = sanserve::smol::Server::bind(free, service)?.threads(1);
                let (address, handle) = (server.local_addr(), server.handle());
                Running { address, thread: thread::spawn(move || server.run()), stop: Box::new(move || handle.stop()) }
            }
        })
    }

    fn stop(self) -> io::Result<()> {
        (self.stop)();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    }
}
