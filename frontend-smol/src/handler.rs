//! The trait of asynchronous handlers, and its implementation for functions.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;

use sanserve_core::RequestBuf;

use crate::driver::{Driver, Erased, Failed, HandlerFuture};
use crate::exchange::{Exchange, Known};

/// Responds to requests (Python's `BaseHTTPRequestHandler`). A value serves one connection: it is made at the first
/// request (`setup`) and dropped when the connection ends (`finish`).
///
/// Methods are written as `async fn`. Those without an override respond with 501.
///
/// ```
/// use sanserve_smol::{Exchange, Handler, StatusCode};
/// use smol::io::AsyncReadExt as _;
///
/// /// Adds up the numbers that are posted to it.
/// #[derive(Default)]
/// struct Sum(u64);
///
/// impl Handler for Sum {
///     async fn do_get(&mut self, x: &mut Exchange<'_>) -> std::io::Result<()> {
///         x.answer(StatusCode::OK, "text/plain", self.0.to_string())
///     }
///
///     async fn do_post(&mut self, x: &mut Exchange<'_>) -> std::io::Result<()> {
///         let mut body = String::new();
///         x.take(20).read_to_string(&mut body).await?;
///         match body.trim().parse::<u64>() {
///             Ok(number) => self.0 = self.0.saturating_add(number),
///             Err(_) => return x.error(StatusCode::BAD_REQUEST, Some("Not a number"), None),
///         }
///         self.do_get(x).await
///     }
/// }
/// ```
///
/// A function is a handler too, for all methods:
///
/// ```
/// use sanserve_smol::{Exchange, Server, Site, StatusCode};
///
/// async fn hello(x: &mut Exchange<'_>) -> std::io::Result<()> {
///     x.answer(StatusCode::OK, "text/plain", "Hello!\n")
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
/// let server = server.with_handler(|| hello);
/// // Or a closure with the type of its parameter:
/// let server = server.with_handler(|| async |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "Hi!\n"));
/// # Ok(())
/// # }
/// ```
///
/// **End.** If a method returns `Ok`, an unfinished response is finished. If the handler has not responded at all, or
/// has written less than it announced, the peer gets a 500, or, if part of the response was sent, the connection is
/// cut. The same happens after an `Err` or a panic, with the status of the error if it has one (see
/// [`HandlerError`](crate::HandlerError)). The reason is logged, and no other connection is affected.
///
/// **Cancellation.** If the connection ends before the response is complete (the peer resets it or is too slow, or
/// the server stops), the future is dropped where it waits. Work that must be completed in any case belongs in a task
/// of its own, or in a `Drop`. After a complete response the future continues to its end, unless the server stops.
///
/// It runs in the task of the connection, so it must not block: see `smol::unblock`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle requests",
    label = "not a `Handler`, nor an `async fn(&mut Exchange<'_>) -> io::Result<()>`",
    note = "a closure is `async |x: &mut Exchange<'_>| ..`, and its future must be `Send`",
    note = "what an `async` closure captures cannot be used by its future: pass it with `Server::with_state`"
)]
pub trait Handler: Send {
    /// Handles a request. The default calls the method for it.
    fn handle(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            match x.method() {
                b"GET" => self.do_get(x).await,
                b"HEAD" => self.do_head(x).await,
                b"POST" => self.do_post(x).await,
                b"PUT" => self.do_put(x).await,
                b"PATCH" => self.do_patch(x).await,
                b"DELETE" => self.do_delete(x).await,
                b"OPTIONS" => self.do_options(x).await,
                _ => self.do_other(x).await,
            }
        }
    }

    /// Handles a GET.
    fn do_get(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        async move { x.unsupported() }
    }

    /// Handles a HEAD, by default like a GET, whose body is discarded.
    fn do_head(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        self.do_get(x)
    }

    /// Handles a POST.
    fn do_post(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        async move { x.unsupported() }
    }

    /// Handles a PUT, by default like [any other method](Handler::do_other).
    fn do_put(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        self.do_other(x)
    }

    /// Handles a PATCH, by default like [any other method](Handler::do_other).
    fn do_patch(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        self.do_other(x)
    }

    /// Handles a DELETE, by default like [any other method](Handler::do_other).
    fn do_delete(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        self.do_other(x)
    }

    /// Handles an OPTIONS, by default like [any other method](Handler::do_other).
    fn do_options(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        self.do_other(x)
    }

    /// Handles any other method.
    fn do_other(&mut self, x: &mut Exchange<'_>) -> impl Future<Output = io::Result<()>> + Send {
        async move { x.unsupported() }
    }
}

/// A function that responds: `async fn(&mut Exchange<'_>) -> io::Result<()>`. The trait exists so that a bound can
/// require that the future is `Send`.
///
/// ```
/// use sanserve_smol::{Answer, Exchange, Server, Site, StatusCode};
///
/// async fn hello(x: &mut Exchange<'_>) -> std::io::Result<()> {
///     x.answer(StatusCode::OK, "text/plain", "hello\n")
/// }
///
/// /// A function of yours that takes a handler.
/// fn server<F>(answer: F) -> std::io::Result<Server>
/// where
///     F: for<'x> Answer<'x> + Clone + Send + Sync + 'static,
/// {
///     Ok(Server::bind("127.0.0.1:0", Site::without_files())?.with_fn(answer))
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = server(hello)?;
/// # drop(server);
/// # Ok(())
/// # }
/// ```
pub trait Answer<'x>: FnMut(&'x mut Exchange<'x>) -> <Self as Answer<'x>>::Future {
    /// The returned future.
    type Future: Future<Output = io::Result<()>> + Send + 'x;
}

impl<'x, F, R> Answer<'x> for F
where
    F: FnMut(&'x mut Exchange<'x>) -> R,
    R: Future<Output = io::Result<()>> + Send + 'x,
{
    type Future = R;
}

impl<F: for<'x> Answer<'x> + Send> Handler for F {
    async fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self(&mut x.again()).await
    }
}

/// A function that responds, with a state: `async fn(&mut Exchange<'_>, S) -> io::Result<()>`. See
/// [`Server::with_state`](crate::Server::with_state).
///
/// ```
/// use std::sync::Arc;
/// use sanserve_smol::{Exchange, Server, Site, StatusCode};
///
/// async fn greet(x: &mut Exchange<'_>, name: Arc<str>) -> std::io::Result<()> {
///     x.answer(StatusCode::OK, "text/plain", format!("I am {name}\n"))
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0", Site::without_files())?.with_state(Arc::from("Ada"), greet);
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle requests with a state",
    label = "not an `async fn(&mut Exchange<'_>, {S}) -> io::Result<()>`",
    note = "a closure is `async |x: &mut Exchange<'_>, state: {S}| ..`, and its future must be `Send`"
)]
pub trait AnswerWith<'x, S>: Fn(&'x mut Exchange<'x>, S) -> <Self as AnswerWith<'x, S>>::Future {
    /// The returned future.
    type Future: Future<Output = io::Result<()>> + Send + 'x;
}

impl<'x, S, F, R> AnswerWith<'x, S> for F
where
    F: Fn(&'x mut Exchange<'x>, S) -> R,
    R: Future<Output = io::Result<()>> + Send + 'x,
{
    type Future = R;
}

/// A function and its state.
pub(crate) struct WithState<F, S> {
    pub(crate) answer: F,
    pub(crate) state: S,
}

impl<S, F> Handler for WithState<F, S>
where
    S: Clone + Send,
    F: for<'x> AnswerWith<'x, S> + Send,
{
    async fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        (self.answer)(&mut x.again(), self.state.clone()).await
    }
}

/// A boxed future of a handler.
pub type BoxedAnswer<'x> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'x>>;

/// Makes a handler of a closure that returns a boxed future. It is for closures that modify their captured state,
/// which an `async` closure cannot do here.
///
/// ```
/// use sanserve_smol::{Server, Site, StatusCode, handler_fn};
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
/// let server = server.with_handler(|| {
///     let mut requests = 0;
///     handler_fn(move |x| {
///         requests += 1;
///         Box::pin(async move { x.answer(StatusCode::OK, "text/plain", format!("{requests}\n")) })
///     })
/// });
/// # Ok(())
/// # }
/// ```
pub fn handler_fn<F>(answer: F) -> F
where
    F: for<'x> FnMut(&'x mut Exchange<'x>) -> BoxedAnswer<'x> + Send,
{
    answer
}

impl<H: Handler> Erased for H {
    fn handle<'h>(&'h mut self, driver: &'h Mutex<Driver>, request: RequestBuf) -> HandlerFuture<'h> {
        Box::pin(async move {
            let known = Known::new(request);
            let outcome = Handler::handle(self, &mut Exchange::new(driver, &known)).await;
            outcome.map_err(|error| Box::new(Failed { error, line: known.request().line().to_vec() }))
        })
    }
}
