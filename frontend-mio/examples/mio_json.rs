//! A small API: `curl 'localhost:8000/sum?n=1&n=2'` gives `{"sum":3}`.

use sanserve_mio::{Misuse, Reply, Request, Server, Site, StatusCode};

fn sum(request: &Request<'_>) -> Result<i64, &'static str> {
    let numbers = request.query_pairs().filter(|(name, _)| name == "n");
    numbers
        .map(|(_, n)| n.parse().map_err(|_| "n is not a number"))
        .try_fold(0_i64, |sum, n: Result<i64, _>| sum.checked_add(n?).ok_or("the sum is too large"))
}

fn answer(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let request = reply.request();
    let (status, body) = match (request.method(), request.path()) {
        (b"GET" | b"HEAD", b"/sum") => match sum(&request) {
            Ok(sum) => (StatusCode::OK, format!("{{\"sum\":{sum}}}\n")),
            Err(why) => (StatusCode::BAD_REQUEST, format!("{{\"error\":\"{why}\"}}\n")),
        },
        (_, b"/sum") => (StatusCode::METHOD_NOT_ALLOWED, "{\"error\":\"GET only\"}\n".into()),
        _ => (StatusCode::NOT_FOUND, "{\"error\":\"not found\"}\n".into()),
    };
    reply.answer(status, "application/json", body)
}

fn main() -> std::io::Result<()> {
    Server::bind("127.0.0.1:8000", Site::without_files().with_answer(answer))?.run()
}
