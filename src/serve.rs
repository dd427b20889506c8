//! Putting the parts together, running them, and stopping.

use crate::{
    health,
    listen::Server,
    observe,
    tls::{self, Asked, Tls},
};
use axum::Router;
use postern_border::Border;
use postern_client::{
    Api,
    http::{Class, Limiter, Rate},
};
use postern_config::{Config, PushContent};
use postern_federation::Federation;
use postern_graph::Graph;
use postern_media::Media;
use postern_push::Push;
use postern_rooms::Rooms;
use postern_users::{Cost, Users};
use postern_web::Elsewhere;
use ruma::ServerName;
use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, timeout::RequestBodyTimeoutLayer};

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
    /// The rooms.
    #[error(transparent)]
    Rooms(#[from] postern_rooms::Error),
    /// The accounts.
    #[error(transparent)]
    Users(#[from] postern_users::Error),
    /// Federation.
    #[error(transparent)]
    Federation(#[from] postern_federation::Error),
    /// The border.
    #[error(transparent)]
    Border(#[from] postern_border::Error),
    /// Push.
    #[error(transparent)]
    Push(#[from] postern_push::Error),
    /// The media.
    #[error(transparent)]
    Media(#[from] postern_media::Error),
    /// The configured name is no server name.
    #[error("server.name: {0}")]
    Name(#[from] ruma::IdParseError),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Addresses for TLS are configured, but no certificate.
    #[error("an address with TLS needs listeners.tls_certificate_file and listeners.tls_key_file")]
    NoCertificate,
    /// Metrics could not be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The operating system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Runs the server until it is asked to stop.
pub async fn serve(config: Config) -> Result<(), Error> {
    let config = Arc::new(config);
    let name = ServerName::parse(config.server.name.as_str())?;
    let settings = postern_graph::Settings {
        path: config.database.path.clone(),
        block_cache: usize::try_from(config.database.cache_mebibytes << 20).unwrap_or(usize::MAX),
    };
    let graph = Graph::open(&settings)?;
    let stopping = CancellationToken::new();
    let (api, federation, border) = api(&config, &graph, &name, &stopping)?;

    // Before anybody can find that the server is ready.
    let signals = Signals::catch()?;
    // Addresses first: what cannot be listened on is said before anything is promised.
    let tls = Tls::load(&config.listeners)?;
    let listeners =
        bind_all(&config.listeners.client, &config.listeners.client_tls, tls.as_ref(), Asked::Nothing)
            .await?;
    let for_servers = bind_all(
        &config.listeners.federation,
        &config.listeners.federation_tls,
        tls.as_ref(),
        Asked::Certificate,
    )
    .await?;
    // Other servers are answered where clients are, too: behind one proxy, as is usual.
    let for_officers = postern_admin::router(api.clone(), border.clone(), federation.clone());
    let router = postern_client::router(api.clone()).merge(federation.router()).merge(for_officers);
    let router = with_layers(router, &config).merge(health::routes(graph.clone(), stopping.clone()));
    let server = |router| {
        Arc::new(Server::new(router, &config.listeners.trusted_proxies, &config.limits, stopping.clone()))
    };
    let federating = server(with_layers(
        federation.router().fallback(|| async { postern_client::http::ApiError::unrecognized() }),
        &config,
    ));
    let server = server(router);
    let mut tasks = tokio::task::JoinSet::new();
    if !config.listeners.metrics.is_empty() {
        let metrics = observe::metrics(graph.clone())?.merge(health::routes(graph.clone(), stopping.clone()));
        let listening = Server::new(metrics, &[], &config.limits, stopping.clone());
        let listening = Arc::new(listening);
        for address in &config.listeners.metrics {
            tasks.spawn(listening.clone().accept(bind(*address).await?, None));
        }
    }
    tasks.spawn(border.clone().keep(stopping.clone()));
    let (unfinished, rooms) = (border.clone(), api.rooms.clone());
    tasks.spawn(async move {
        if let Err(error) = unfinished.finish_releases(&rooms).await {
            tracing::error!(%error, "releases that were decided cannot be finished");
        }
    });
    tasks.spawn(border.clone().keep_acls(api.rooms.clone(), stopping.clone()));
    tasks.spawn(border.clone().keep_policies(api.rooms.clone(), stopping.clone()));
    let followers = postern_client::start(&api);
    let pushing = api.push.start(federation.push_gateways())?;
    // What servers by hand are due is queued like what goes over the network.
    let sends = config.federation.enabled || !border.by_hand().is_empty();
    let sending = sends.then(|| federation.start()).transpose()?;
    let addresses: Vec<String> =
        listeners.iter().map(|(listener, tls)| url(listener, tls.is_some())).collect();
    for (listener, tls) in listeners {
        tasks.spawn(server.clone().accept(listener, tls));
    }
    for (listener, tls) in for_servers {
        tasks.spawn(federating.clone().accept(listener, tls));
    }
    tracing::info!(server_name = %name, addresses = addresses.join(" "), "ready");
    welcome(&api, addresses.first().map(String::as_str)).await?;

    until_stopped(signals, tls.as_deref(), &federation, &border).await?;
    tracing::info!("stopping");
    stopping.cancel();
    while tasks.join_next().await.is_some() {}
    let patience = Duration::from_secs(config.limits.drain_seconds);
    tokio::join!(server.drain(patience), federating.drain(patience));
    followers.stop().await;
    pushing.stop().await;
    if let Some(sending) = sending {
        sending.stop().await;
    }
    drop((api, federation, border));
    graph.flush()?;
    tracing::info!("stopped");
    Ok(())
}

fn api(
    config: &Arc<Config>,
    graph: &Arc<Graph>,
    name: &ServerName,
    stopping: &CancellationToken,
) -> Result<(Api, Federation, Border), Error> {
    let rooms = Rooms::new(graph.clone(), name, config.rooms.default_version.as_str())?;
    let passwords = &config.passwords;
    let users = Users::new(
        graph.clone(),
        name,
        postern_users::Settings {
            password_cost: Cost {
                memory_kib: passwords.argon2_memory_kibibytes,
                iterations: passwords.argon2_iterations,
                parallelism: passwords.argon2_parallelism,
            },
            access_token_ms: config.sessions.access_token_lifetime_ms,
        },
    );
    let media = &config.media;
    let media = Media::new(
        graph.clone(),
        name.as_str(),
        postern_media::Settings {
            max_upload_bytes: media.max_upload_bytes,
            max_image_pixels: media.max_image_pixels,
            dynamic_thumbnails: media.dynamic_thumbnails,
            pending_upload_lifetime_ms: media.pending_upload_lifetime_ms,
            max_pending_uploads: media.max_pending_uploads,
        },
    );
    media.sweep()?;
    let (rooms, users, media) = (Arc::new(rooms), Arc::new(users), Arc::new(media));
    let border =
        Border::new(name, config.border.directory.clone(), graph.clone(), users.clone(), media.clone())?;
    rooms.guard(Arc::new(border.clone()));
    let push = Push::new(graph.clone(), rooms.clone(), users.clone(), push_settings(config));
    let limiter = Arc::new(limiter(config));
    let federation = Federation::new(
        config.clone(),
        graph.clone(),
        rooms.clone(),
        users.clone(),
        media.clone(),
        limiter.clone(),
        stopping.clone(),
    )?;
    federation.carry(border.clone());
    let elsewhere: Arc<dyn Elsewhere> = Arc::new(federation.clone());
    let api = Api::new(
        config.clone(),
        graph.clone(),
        rooms,
        users,
        media,
        push,
        limiter,
        elsewhere,
        stopping.clone(),
    );
    Ok((api, federation, border))
}

fn push_settings(config: &Config) -> postern_push::Settings {
    let push = &config.push;
    postern_push::Settings {
        enabled: push.enabled,
        content: match push.content {
            PushContent::Full => postern_push::Content::Full,
            PushContent::EventIdOnly => postern_push::Content::IdsOnly,
        },
        retry_min: Duration::from_millis(push.retry_min_ms),
        retry_max: Duration::from_millis(push.retry_max_ms),
        give_up: Duration::from_millis(push.give_up_after_ms),
    }
}

fn limiter(config: &Config) -> Limiter {
    let limits = &config.rate_limits;
    if !limits.enabled {
        return Limiter::default();
    }
    let rate =
        |rate: postern_config::Rate| Rate { per_second: rate.per_second, burst: f64::from(rate.burst) };
    Limiter::new(vec![
        (Class::Login, rate(limits.login())),
        (Class::Registration, rate(limits.registration())),
        (Class::Message, rate(limits.message())),
        (Class::Join, rate(limits.join())),
        (Class::Invite, rate(limits.invite())),
        (Class::Upload, rate(limits.upload())),
        (Class::Binding, rate(limits.binding())),
    ])
}

fn with_layers(router: Router, config: &Config) -> Router {
    let stalled = Duration::from_millis(config.limits.stalled_timeout_ms);
    router
        .layer(tower::layer::layer_fn(observe::Observed))
        .layer(RequestBodyTimeoutLayer::new(stalled))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            axum::response::IntoResponse::into_response(postern_client::http::ApiError::internal(
                &"a handler panicked",
            ))
        }))
}

/// Binds addresses without and with TLS.
async fn bind_all(
    plain: &[SocketAddr],
    with_tls: &[SocketAddr],
    tls: Option<&Arc<Tls>>,
    asked: Asked,
) -> Result<Vec<(TcpListener, Option<(Arc<Tls>, Asked)>)>, Error> {
    let mut listeners = Vec::new();
    for address in plain {
        listeners.push((bind(*address).await?, None));
    }
    for address in with_tls {
        let tls = tls.ok_or(Error::NoCertificate)?.clone();
        listeners.push((bind(*address).await?, Some((tls, asked))));
    }
    Ok(listeners)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))
}

fn url(listener: &TcpListener, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("{scheme}://{address}"))
}

/// On a server without accounts, tells how to make the first one.
async fn welcome(api: &Api, address: Option<&str>) -> Result<(), Error> {
    let Some(token) = api.users.first_admin_token().await? else { return Ok(()) };
    let address = address.unwrap_or("the server");
    let text = format!(
        "\nThere is no account yet. Register the first administrator with any Matrix client at\n  \
         {address}\nand this registration token, which works once:\n  {token}\n\n"
    );
    // Standard output, not the log: a log is kept, this is for whoever starts the server.
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The signals that are listened to. What is not listened to ends the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for SIGTERM or SIGINT; SIGHUP reads the certificates and the border's directory again.
async fn until_stopped(
    mut signals: Signals,
    tls: Option<&Tls>,
    federation: &Federation,
    border: &Border,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hang_up.recv() => {
                match tls.map(Tls::reload) {
                    Some(Ok(())) => tracing::info!("the certificate was read again"),
                    Some(Err(error)) => tracing::error!(%error, "the old certificate stays in use"),
                    None => {}
                }
                match federation.read_certificates() {
                    Ok(()) => tracing::info!("the certificates for other servers were read again"),
                    Err(error) => {
                        tracing::error!(%error, "the old certificates for other servers stay in use");
                    }
                }
                match border.reload().await {
                    Ok(()) => tracing::info!("the border was read again"),
                    Err(error) => tracing::error!(%error, "the border stays as it was"),
                }
            }
        }
    }
}
