//! Checks whether the responses and the log of a connection are correct for its input, by comparing them with the
//! reference parser and the virtual disk.

use sanserve_core::{Chunked, EntryKind, Protocol, listing_row};

use super::answers::{self, Answer, shown};
use super::disk::Node;
use super::handlers::BIG;
use super::hops::{Head, Hop, Meaning};
use super::model::{self, Asked, Model, Then};
use super::rig::{At, Rig};

/// Checks everything so far. `settled`: also checks that no complete request is without a response.
pub fn check(rig: &Rig, settled: bool) -> Result<(), String> {
    let model = model::read(&rig.got, &rig.config.limits);
    let is_head = |n: usize| match rig.finished.get(n) {
        Some(done) => done.line.starts_with(b"HEAD "),
        None => model.requests.get(n).is_some_and(Asked::is_head),
    };
    let stream = answers::read(&rig.wire, is_head)?;
    let answers = &stream.answers;
    let begun = model.requests.len() + usize::from(model.then != Then::Nothing && model.then != Then::BadBody);
    if answers.len() > begun || rig.finished.len() > begun {
        return Err(format!("{} answers and {} finished for {model:?}", answers.len(), rig.finished.len()));
    }
    check_log(rig, answers, stream.rest)?;
    for (n, answer) in answers.iter().enumerate() {
        match model.requests.get(n) {
            Some(asked) => check_one(rig, n, asked, answer).map_err(|e| format!("{e}: {asked:?} -> {answer:?}"))?,
            None if answer.status < 400 => return Err(format!("{answer:?} for {:?}", model.then)),
            None => {}
        }
        let refused = model.requests.get(n).is_none();
        if refused && !answer.closes() {
            return Err(format!("the connection stays open after a violation: {answer:?}"));
        }
    }
    if settled { check_settled(rig, &model, answers) } else { Ok(()) }
}

/// Checks what must hold for any input: responses are well-formed, with consistent framing, and match the log.
pub fn loose(rig: &Rig) -> Result<Vec<Answer>, String> {
    let done = |n: usize| rig.finished.get(n).map(|done| done.line.starts_with(b"HEAD "));
    // It is not known whether the current exchange is a HEAD.
    let stream = answers::read(&rig.wire, |n| done(n).unwrap_or(false))
        .or_else(|_| answers::read(&rig.wire, |n| done(n).unwrap_or(true)))?;
    for answer in &stream.answers {
        let nul = answer.reason.ends_with("encoded NUL");
        if matches!(answer.status, 400 | 408 | 413 | 414 | 431 | 505) && !answer.closes() && !nul {
            return Err(format!("the connection stays open after a violation: {answer:?}"));
        }
    }
    check_log(rig, &stream.answers, stream.rest)?;
    Ok(stream.answers)
}

/// Compares the log with the bytes that were sent.
fn check_log(rig: &Rig, answers: &[Answer], rest: usize) -> Result<(), String> {
    let closed = matches!(rig.at, At::Close(_));
    let open = usize::from(!closed);
    if answers.len() > rig.finished.len() + open {
        return Err(format!("{} answers, {} finished", answers.len(), rig.finished.len()));
    }
    for (n, done) in rig.finished.iter().enumerate() {
        let wrong = |what: &str| Err(format!("{what}: {done:?}, answer {:?}", answers.get(n)));
        let answer = answers.get(n);
        match (&done.cut, answer) {
            (None, None) => return wrong("no response, but not cut"),
            (None, Some(answer)) if !answer.complete => return wrong("incomplete, but not cut"),
            (Some(_), Some(answer)) if answer.complete && !answer.until_close && !is_made(answer) => {
                return wrong("complete, but cut");
            }
            (Some(_), _) if n + 1 < rig.finished.len() => return wrong("cut, but the connection stayed open"),
            _ => {}
        }
        match answer {
            Some(answer) if answer.status != done.status => return wrong("status"),
            Some(answer) if answer.framed != done.sent => return wrong("size"),
            None if done.sent != 0 => return wrong("size of nothing"),
            _ => {}
        }
        let is_relayed = answer.is_some_and(|answer| answer.field("X-Script").is_some());
        if done.cut.is_none() && done.error != (done.status >= 400 && !is_relayed) {
            return wrong("error");
        }
    }
    // A finished exchange leaves nothing incomplete.
    let cut = rig.finished.last().is_some_and(|done| done.cut.is_some());
    if closed && !cut && (rest > 0 || answers.iter().any(|answer| !answer.complete)) {
        return Err("closed with an incomplete response, but not cut".into());
    }
    Ok(())
}

/// Whether a handler or a script made the response, and not files.
fn is_made(answer: &Answer) -> bool {
    answer.field("X-Handler").is_some() || answer.field("X-Script").is_some()
}

fn check_one(rig: &Rig, n: usize, asked: &Asked, answer: &Answer) -> Result<(), String> {
    if answer.interim.len() > usize::from(asked.expects) {
        return Err("100 Continue without an expectation".into());
    }
    if matches!(answer.status, 400 | 408 | 413 | 414 | 431 | 505) && !answer.closes() {
        return Err("the connection stays open after a violation".into());
    }
    if asked.is_head() && !answer.body.is_empty() {
        return Err("a body after HEAD".into());
    }
    // An invalid or incomplete body must not be answered like a complete one.
    let handled = answer.field("X-Handler").is_some();
    if handled && !asked.is_head() {
        return check_handled(asked, answer);
    }
    match rig.hops.of(n) {
        [] => check_served(rig, n, asked, answer),
        hops => check_scripted(rig, n, asked, answer, hops),
    }
}

/// Checks a response from files.
fn check_served(rig: &Rig, n: usize, asked: &Asked, answer: &Answer) -> Result<(), String> {
    if asked.is_head() || !matches!(answer.status, 200 | 206) {
        return Ok(());
    }
    let Some(served) = rig.served.iter().rfind(|served| served.exchange == n) else {
        return Err("content, but nothing was opened".into());
    };
    check_path_of(asked, &served.path)?;
    let file = match &served.node {
        Node::File(file) => file,
        Node::Directory(entries) => return check_listing(entries, answer),
        Node::Fails(_) | Node::Script(_) => return Err("content of something that is not a file".into()),
    };
    let parts = match answer.status {
        200 => vec![(0, file.len.saturating_sub(1), file.len, answer.body.clone())],
        _ if answer.complete => answers::parts(answer)?,
        _ => return Ok(()),
    };
    for (first, last, len, bytes) in parts {
        let mut expected = Vec::new();
        file.read(first, if answer.complete && len > 0 { last - first + 1 } else { bytes.len() as u64 }, &mut expected);
        if len != file.len || expected != bytes {
            return Err(format!("not bytes {first}-{last} of {file:?}"));
        }
    }
    if answer.status == 200 && answer.text("Content-Length") != file.len.to_string() {
        return Err(format!("not the length of {file:?}"));
    }
    Ok(())
}

/// Checks that the opened path is the requested one, or its index page.
fn check_path_of(asked: &Asked, opened: &[u8]) -> Result<(), String> {
    let path = asked.below_root();
    let index = opened.strip_suffix(b"index.html").or_else(|| opened.strip_suffix(b"index.htm"));
    let is_index =
        asked.path().ends_with(b"/") && index.is_some_and(|dir| dir.strip_suffix(b"/").unwrap_or(dir) == path);
    if opened == path || is_index { Ok(()) } else { Err(format!("opened {}", shown(opened))) }
}

fn check_handled(asked: &Asked, answer: &Answer) -> Result<(), String> {
    let expected = match asked.path() {
        b"/h/late" => b"late".to_vec(),
        b"/h/short" => b"four".to_vec(),
        b"/h/big" => vec![b'B'; BIG],
        _ => asked.body.clone(),
    };
    let streams = asked.path() == b"/h/stream" || asked.path() == b"/h/echo";
    if answer.complete && !answer.until_close && streams && !asked.complete {
        return Err("a complete response to an incomplete body".into());
    }
    if !expected.starts_with(&answer.body) || (answer.complete && !answer.until_close && expected != answer.body) {
        return Err(format!("expected {}", shown(&expected)));
    }
    Ok(())
}

/// Checks that a request for a script has the response of the script, or a reason for another one.
fn check_scripted(rig: &Rig, n: usize, asked: &Asked, answer: &Answer, hops: &[Hop]) -> Result<(), String> {
    let hop = hops.last().expect("a script");
    let meaning = hop.meaning(&rig.config);
    let local = match &meaning {
        Meaning::Head(head) => head.local(),
        _ => None,
    };
    let unmarked =
        matches!(&meaning, Meaning::Head(head) if local.is_none() && !head.marked && answer.status == head.status);
    if answer.field("X-Script").is_some() || unmarked {
        return match &meaning {
            Meaning::Head(head) if local.is_none() => check_relayed(rig, n, asked, answer, hop, head),
            _ => Err(format!("a response from a script whose output means {meaning:?}")),
        };
    }
    let may_be = match answer.status {
        status if hop.refused == Some(status) => true,
        // To an incomplete body.
        400 | 413 | 431 if !asked.complete => true,
        // The missing part may have arrived later.
        408 => rig.trouble.any && asked.has_body,
        411 => rig.config.cgi.chunked == Chunked::Refuse && asked.field("Transfer-Encoding").is_some(),
        500 => rig.trouble.any,
        502 => match local {
            Some(_) => hops.len() > usize::from(rig.config.limits.redirects),
            None => meaning == Meaning::Wrong || (meaning == Meaning::More && hop.eof),
        },
        504 => rig.trouble.any && hop.since.is_some(),
        _ => false,
    };
    match local {
        _ if may_be => Ok(()),
        Some(to) if answer.status != 502 => {
            let moved = Asked { target: to.into(), ..asked.clone() };
            check_served(rig, n, &moved, answer)
        }
        _ => Err(format!("unexpected response for {hop:?}")),
    }
}

/// Checks that the output of a script is relayed unchanged, with correct framing.
fn check_relayed(rig: &Rig, n: usize, asked: &Asked, answer: &Answer, hop: &Hop, head: &Head) -> Result<(), String> {
    let done = rig.finished.get(n).filter(|done| done.cut.is_none());
    if answer.status != head.status {
        return Err(format!("not status {}", head.status));
    }
    if answer.field("Location") != head.location.as_deref().map(str::as_bytes) {
        return Err("not its Location".into());
    }
    if asked.is_head() || matches!(answer.status, 204 | 205 | 304) {
        return if done.is_some() && !hop.eof && !hop.killed { Err("it has not ended".into()) } else { Ok(()) };
    }
    let (is_11, chunked) = (asked.line.ends_with(b"1.1") && answer.is_11, answer.field("Transfer-Encoding").is_some());
    let framed = match head.length {
        Some(length) => answer.text("Content-Length") == length.to_string(),
        None if hop.is_raw() => !chunked && answer.until_close,
        None => chunked == is_11 && answer.until_close != is_11,
    };
    if !framed {
        return Err(format!("wrong framing for {head:?}"));
    }
    let body = &hop.written[head.len..];
    let body = &body[..body.len().min(head.length.unwrap_or(usize::MAX))];
    let whole = if answer.until_close { done.is_some() } else { answer.complete };
    let is_all = body == answer.body && head.length.map_or(hop.eof, |length| body.len() == length);
    if !body.starts_with(&answer.body) || (whole && !is_all) {
        return Err(format!("not {}", shown(body)));
    }
    Ok(())
}

fn check_listing(entries: &[(Vec<u8>, EntryKind)], answer: &Answer) -> Result<(), String> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|(name, _)| (name.to_ascii_lowercase(), name.clone()));
    let mut rows = b"<ul>\n".to_vec();
    for (name, kind) in &entries {
        listing_row(name, *kind, &mut rows);
    }
    rows.extend_from_slice(b"</ul>\n");
    let found = answer.body.windows(rows.len()).any(|part| part == rows);
    if answer.complete && !found { Err("not the listing".into()) } else { Ok(()) }
}

/// Checks that everything that can be answered is answered, and that nothing ends without a reason.
fn check_settled(rig: &Rig, model: &Model, answers: &[Answer]) -> Result<(), String> {
    let closed = matches!(rig.at, At::Close(_)) || rig.shut;
    let ended = answers.last().is_some_and(Answer::closes) || closed;
    let complete = model.requests.iter().filter(|asked| asked.complete).count();
    if answers.len() < complete && !ended {
        return Err(format!("{} answers to {complete} requests, and it is {:?}", answers.len(), rig.at));
    }
    if matches!(model.then, Then::BadHead | Then::BadBody) && !ended {
        return Err(format!("a violation, but the connection is {:?}", rig.at));
    }
    if rig.trouble.any || rig.config.protocol == Protocol::Http10 {
        return Ok(());
    }
    for (n, answer) in answers.iter().enumerate() {
        let Some(asked) = model.requests.get(n) else { continue };
        // A script may leave no other way to end its response.
        let ends_so = answer.until_close || answer.status == 205 || rig.hops.of(n).last().is_some_and(Hop::is_raw);
        let failed = asked.path() == b"/h/short" || (answer.field("X-Script").is_some() && ends_so);
        if answer.closes() && asked.keep_alive && !asked.has_body && !failed {
            return Err(format!("the connection ends without a reason after {answer:?}"));
        }
    }
    // RFC 9112 section 9.6: the server announces the close. A body may become invalid after its response.
    let asked = answers.len().checked_sub(1).and_then(|last| model.requests.get(last));
    let scripted = answers.len().checked_sub(1).is_some_and(|last| !rig.hops.of(last).is_empty());
    let early = asked.is_some_and(|asked| asked.has_body && (asked.path().starts_with(b"/h/") || scripted));
    let cut = rig.finished.last().is_some_and(|done| done.cut.is_some());
    if closed && !early && !cut && answers.last().is_some_and(|answer| !answer.closes()) {
        return Err(format!("the connection ends unannounced after {:?}", answers.last()));
    }
    if closed && answers.is_empty() && rig.finished.is_empty() {
        return Err("closed without a reason".into());
    }
    Ok(())
}
