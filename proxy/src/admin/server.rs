//! The admin side's HTTP: who may ask, and what for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::status::{self, Phase};
use super::{Admin, handover, metrics};
use crate::guard::is_local_authority;
use crate::metrics::exposition::CONTENT_TYPE;
use crate::profile::roster;
use crate::secret::Secret;

/// Most connections at a time; each launcher of the home has one for as long as it runs.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take for a request's head, and how long a connection stays open without one.
const HEAD: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug, Clone)]
enum Caller {
    /// A process of this user.
    Owner,
    /// Anybody on this machine, who has to show the token.
    Port(Arc<Secret>),
}

/// Answers on the home's socket.
pub(super) async fn unix(admin: Arc<Admin>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            // Its directory lets nobody else in; this holds should somebody open it.
            Ok((stream, _)) if is_owner(&stream) => serve(&admin, stream, Caller::Owner, permit),
            Ok(_) => {}
            Err(_) => back_off().await,
        }
    }
}

/// Answers on the port.
pub(super) async fn tcp(admin: Arc<Admin>, listener: Arc<TcpListener>, token: Secret) {
    let (room, token) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(token));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The one who has the place has the port, too.
            () = admin.proxy.leaving.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => serve(&admin, stream, Caller::Port(Arc::clone(&token)), permit),
            Err(_) => back_off().await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody tells when there are fewer open files")]
async fn back_off() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn is_owner(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw() || peer.uid() == 0)
}

fn serve(
    admin: &Arc<Admin>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    permit: OwnedSemaphorePermit,
) {
    let admin = Arc::clone(admin);
    let service = service_fn(move |request: Request<Incoming>| {
        let (admin, caller) = (Arc::clone(&admin), caller.clone());
        async move { Ok::<_, Infallible>(answer(&admin, &caller, request).await) }
    });
    tokio::spawn(async move {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 * 1024);
        // A client that breaks off is nobody's failure.
        let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        drop(permit);
    });
}

type Answer = Response<Full<Bytes>>;

async fn answer(admin: &Arc<Admin>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let is_handover = request.method() == Method::POST && request.uri().path() == "/handover";
    match check(request.headers(), caller) {
        Ok(()) if is_handover && matches!(caller, Caller::Owner) => handover::answer(admin, request),
        Ok(()) => route(admin, caller, request.method(), request.uri().path()).await,
        Err((status, problem)) => {
            let mut answer = error(status, problem);
            if status == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            answer
        }
    }
}

async fn route(admin: &Arc<Admin>, caller: &Caller, method: &Method, path: &str) -> Answer {
    let (method, is_owner) = (method.as_str(), matches!(caller, Caller::Owner));
    match (method, path) {
        ("GET", "/healthz") => {
            let phase = Phase::of(&admin.proxy);
            let status =
                if phase == Phase::Serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &json!({"state": phase}))
        }
        ("GET", "/metrics") => text(StatusCode::OK, CONTENT_TYPE, metrics::render(admin)),
        ("GET", "/status") => json(StatusCode::OK, &json!(status::take(admin))),
        ("GET", "/launch") if is_owner => json(StatusCode::OK, &admin.launch()),
        ("GET", "/watch") if is_owner => {
            admin.proxy.leaving.cancelled().await;
            json(StatusCode::OK, &json!({"state": Phase::of(&admin.proxy)}))
        }
        ("POST", "/reload") if is_owner => {
            match roster::reload(&admin.proxy.control, &admin.proxy.profiles).await {
                Ok(changes) => json(StatusCode::OK, &json!({"version": 1, "changes": changes})),
                Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, &problem),
            }
        }
        (_, "/healthz" | "/status" | "/metrics") => not_allowed("GET"),
        (_, "/launch" | "/watch") if is_owner => not_allowed("GET"),
        (_, "/reload" | "/handover") if is_owner => not_allowed("POST"),
        _ => error(StatusCode::NOT_FOUND, "there is nothing at this path"),
    }
}

impl Admin {
    /// What a launcher needs that points a client at this proxy.
    fn launch(&self) -> Value {
        let config = &self.proxy.control.config;
        json!({
            "version": 1,
            "pid": std::process::id(),
            "ready": self.run.ready,
            "launched": self.run.is_launched,
            "state": Phase::of(&self.proxy),
            "upstream": config.upstream.as_ref().map(ToString::to_string),
            "scope": self.proxy.profiles.scope(),
            "recorded": self.proxy.recorder.is_some(),
            "settings": config.in_force(),
        })
    }
}

/// A page in a browser cannot ask, whatever name it found this under; nobody without the token can at the port.
fn check(headers: &HeaderMap, caller: &Caller) -> Result<(), (StatusCode, &'static str)> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err((StatusCode::BAD_REQUEST, "there is not exactly one Host"));
    };
    let host = host.to_str().map(str::to_ascii_lowercase);
    if !host.is_ok_and(|host| is_local_authority(&host)) {
        return Err((StatusCode::FORBIDDEN, "the Host is not a name of this machine"));
    }
    let is_of_page = headers.contains_key(header::ORIGIN)
        || headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| !site.as_bytes().eq_ignore_ascii_case(b"none"));
    if is_of_page {
        return Err((StatusCode::FORBIDDEN, "a web page sent this request"));
    }
    let Caller::Port(token) = caller else { return Ok(()) };
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (shown.next(), shown.next());
    let bearer = first.and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()));
    let is_good = second.is_none()
        && bearer
            .is_some_and(|(scheme, shown)| scheme.eq_ignore_ascii_case(b"bearer ") && token.matches(shown));
    let problem = "show the token of the file `admin-token` in prodex's home, as a bearer";
    if is_good { Ok(()) } else { Err((StatusCode::UNAUTHORIZED, problem)) }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", format!("{value}\n"))
}

pub(super) fn error(status: StatusCode, problem: &str) -> Answer {
    json(status, &json!({"error": problem}))
}

fn not_allowed(method: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    answer
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(caller: &Caller, fields: &[(&'static str, &'static str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check(&headers, caller).err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn only_local_programs_may_ask_and_only_with_the_token_at_the_port() {
        let host = ("host", "127.0.0.1:9");
        let owner = Caller::Owner;
        for (fields, expected) in [
            (&[host][..], 200),
            (&[], 400),
            (&[host, host], 400),
            (&[("host", "evil.com")], 403),
            (&[host, ("origin", "http://localhost")], 403),
            (&[host, ("sec-fetch-site", "same-origin")], 403),
            (&[host, ("sec-fetch-site", "none")], 200),
        ] {
            assert_eq!(status(&owner, fields), expected, "{fields:?}");
        }
        let port = Caller::Port(Arc::new(Secret::new("token")));
        let token = ("authorization", "bearer token");
        for (fields, expected) in [
            (&[host][..], 401),
            (&[host, token], 200),
            (&[host, token, token], 401),
            (&[host, ("authorization", "Bearer toke")], 401),
            (&[host, ("authorization", "token")], 401),
            (&[host, token, ("origin", "null")], 403),
        ] {
            assert_eq!(status(&port, fields), expected, "{fields:?}");
        }
    }
}
