//! From a request to a WebSocket (RFC 6455).

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::reply::{self, Reply};
use crate::status::Status;

/// Clients send at most 32 KiB of input at a time; this is room enough, and not a way to fill the memory.
const MOST_MESSAGE_BYTES: usize = 1024 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;

/// A WebSocket with a client.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a header that is a list of words has this one.
fn has_word(headers: &HeaderMap, name: http::header::HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// What the client offers, in its order.
fn offered(headers: &HeaderMap) -> Vec<&str> {
    let texts =
        headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).collect()
}

/// Agrees on one of our protocols and gives the answer, and what becomes of the connection afterwards.
///
/// # Errors
/// 400 if the request does not ask for a WebSocket, or for no protocol that there is.
pub(super) fn upgrade(
    request: Request<Incoming>,
    ours: &[&'static str],
) -> Result<(Reply, &'static str, impl Future<Output = hyper::Result<Socket>> + Send + use<>), Status>
{
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let asks = has_word(headers, UPGRADE, "websocket") && has_word(headers, CONNECTION, "upgrade");
    let (true, Some(key)) = (asks, key) else {
        let how = if has_word(headers, UPGRADE, "SPDY/3.1") {
            "SPDY is not supported, use a client that speaks WebSocket (kubectl 1.31 or newer)"
        } else {
            "Upgrade request required"
        };
        return Err(Status::bad_request(how));
    };
    let offered = offered(headers);
    let Some(protocol) = ours.iter().find(|ours| offered.contains(ours)) else {
        let message =
            format!("none of the WebSocket protocols {offered:?} is supported, only {ours:?}");
        return Err(Status::bad_request(message));
    };
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS.as_u16());
    let answers = reply.headers_mut();
    answers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
    answers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let socket = async move {
        let upgraded = TokioIo::new(hyper::upgrade::on(request).await?);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MOST_MESSAGE_BYTES))
            .max_frame_size(Some(MOST_MESSAGE_BYTES))
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0);
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await)
    };
    Ok((reply, protocol, socket))
}
