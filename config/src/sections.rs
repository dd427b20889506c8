//! The settings themselves. A comment here is what the sample file and the manual say.

use crate::{
    declare::sections,
    secret::Secret,
    types::{
        EncryptByDefault, LogFilter, LogFormat, PublicKey, PushContent, RegistrationMode, RoomVersion,
        ServerName, ServerPattern, Who,
    },
    value::{between, positive_up_to},
};
use ipnet::IpNet;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use url::Url;

sections! {
    /// Who this server is.
    server: Server {
        /// The part of user ids after the colon. It stands in every event and can never be changed
        /// once the server has been used.
        name: ServerName = ServerName::localhost();
        /// Where clients reach this server from outside. Told to clients in `/.well-known/matrix/client`,
        /// which answers 404 while this is not set.
        public_base_url: Option<Url> = None, example "\"https://matrix.example.org\"";
        /// Mail address of the administrators, told in `/.well-known/matrix/support`.
        support_email: Option<String> = None, example "\"admin@example.org\"";
        /// Matrix id of an administrator, told in `/.well-known/matrix/support`.
        support_matrix_id: Option<String> = None, example "\"@admin:example.org\"";
        /// Web page with help for users, told in `/.well-known/matrix/support`.
        support_page: Option<Url> = None, example "\"https://help.example.org\"";
    }

    /// The addresses the server listens on.
    listeners: Listeners {
        /// Addresses for clients, HTTP/1.1 and HTTP/2 without TLS. Behind a reverse proxy that
        /// terminates TLS, or for trying the server out. Other servers are answered here too.
        client: Vec<SocketAddr> = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8008))];
        /// Addresses for clients with TLS. Other servers are answered here too.
        client_tls: Vec<SocketAddr> = Vec::new();
        /// Addresses for other servers only, without TLS: behind a reverse proxy that terminates it.
        federation: Vec<SocketAddr> = Vec::new();
        /// Addresses for other servers only, with TLS. Servers look for a server at port 8448, unless its
        /// name or `/.well-known/matrix/server` says otherwise.
        federation_tls: Vec<SocketAddr> = Vec::new(), example "[\"0.0.0.0:8448\"]";
        /// The certificate chain, PEM. Read again on SIGHUP.
        tls_certificate_file: Option<PathBuf> = None, example "\"/etc/postern/tls/chain.pem\"";
        /// The certificate's private key, PEM. Read again on SIGHUP.
        tls_key_file: Option<PathBuf> = None, example "\"/etc/postern/tls/key.pem\"";
        /// Addresses for Prometheus, which reads `/metrics`; no address, no metrics. Anyone who reaches
        /// them may read them: keep them on an internal network.
        metrics: Vec<SocketAddr> = Vec::new();
        /// Reverse proxies whose `X-Forwarded-For` is believed, so that rate limits and devices see the
        /// client's address.
        trusted_proxies: Vec<IpNet> = Vec::new();
    }

    /// The event graph, where everything is stored.
    database: Database {
        /// The directory. Made if it does not exist.
        path: PathBuf = PathBuf::from("./data");
        /// Memory for blocks read from disk, mebibytes. Larger servers gain from more.
        cache_mebibytes: u64 = 32, check between(8, 1 << 20);
    }

    /// What crosses the border to other servers, and who here may know what: `docs/border.md`.
    border: Border {
        /// The directory with `border.toml`, security policies in `spif/` and Cedar policies in `policies/`. Read again on
        /// SIGHUP. Not set: rooms can be labelled, and what is labelled stays here; what is not crosses the border
        /// as everywhere in Matrix.
        directory: Option<PathBuf> = None, example "\"/etc/postern/border\"";
    }

    /// How accounts come into being.
    registration: Registration {
        /// Who may register: nobody (`closed`), whoever has a registration token (`token`), or anyone without any proof
        /// (`open`). While a server has no account, it prints a one-time token at its start, with which
        /// the first administrator registers whatever stands here.
        mode: RegistrationMode = RegistrationMode::Token;
        /// A registration token that can be used any number of times.
        token: Option<Secret> = None;
        /// The secret of `/_synapse/admin/v1/register`, by which tools make accounts, also of administrators.
        /// Not set: that endpoint is off.
        shared_secret: Option<Secret> = None;
        /// Whether guests may register: accounts without password that may do little.
        guests: bool = false;
    }

    /// Passwords, and how they are stored (argon2id).
    passwords: Passwords {
        /// Whether users may log in with a password.
        enabled: bool = true;
        /// Shortest password for a new account or a changed password, characters.
        min_length: usize = 8, check between(1, 128);
        /// Memory for hashing one password, kibibytes. A changed cost applies to passwords set from then on.
        argon2_memory_kibibytes: u32 = 19_456, check between(8, 4 << 20);
        /// Passes over that memory.
        argon2_iterations: u32 = 2, check between(1, 100);
        /// Lanes of that memory; must not be more than an eighth of the kibibytes.
        argon2_parallelism: u32 = 1, check between(1, 64);
    }

    /// Sessions of clients.
    sessions: Sessions {
        /// How long an access token is good for with clients that refresh theirs, milliseconds.
        access_token_lifetime_ms: u64 = 3_600_000, check between(10_000, 31_536_000_000);
        /// How long a login token (`m.login.token`) is good for, milliseconds.
        login_token_lifetime_ms: u64 = 120_000, check between(1_000, 3_600_000);
        /// How long a user has for the steps of an interactive authentication, milliseconds.
        authentication_lifetime_ms: u64 = 900_000, check between(10_000, 86_400_000);
        /// Most devices one account may have.
        max_devices_per_user: usize = 1_000, check between(1, 1_000_000);
    }

    /// Bounds that keep one client from taking the server from the others.
    limits: Limits {
        /// Largest body of a request other than an upload, bytes. One event may have 65536.
        max_request_body_bytes: usize = 8 << 20, check between(65_536, 1 << 30);
        /// Most connections at a time; more wait to be accepted. Each takes an open file.
        max_connections: usize = 16_384, check between(1, 1_000_000);
        /// Most requests at a time on one HTTP/2 connection.
        max_streams_per_connection: u32 = 128, check between(1, 10_000);
        /// How long a client may take to send the header of a request, milliseconds.
        header_read_timeout_ms: u64 = 15_000, check between(100, 600_000);
        /// How long a client may take for the next piece of a request's body, or to take the next piece of a
        /// response, milliseconds. A slow client is fine, one that has stopped is cut off.
        stalled_timeout_ms: u64 = 30_000, check between(100, 600_000);
        /// Longest time a `/sync` waits for something to happen, milliseconds, whatever the client asks for.
        long_poll_max_ms: u64 = 120_000, check between(1_000, 600_000);
        /// How long the server waits at its end for requests in progress, seconds.
        drain_seconds: u64 = 10, check between(0, 600);
    }

    /// How often one user, or one address before login, may do something: so many per second in the long run,
    /// and so many at once.
    rate_limits: RateLimits {
        /// Whether these limits hold.
        enabled: bool = true;
        /// Attempts to log in, per second, for an address and for an account.
        login_per_second: f64 = 0.5, check positive_up_to(1e6);
        /// Attempts to log in, at once.
        login_burst: u32 = 20, check between(1, 1_000_000);
        /// Registrations of an address, per second.
        registration_per_second: f64 = 0.2, check positive_up_to(1e6);
        /// Registrations of an address, at once.
        registration_burst: u32 = 10, check between(1, 1_000_000);
        /// Messages and other events a user sends, per second.
        message_per_second: f64 = 10.0, check positive_up_to(1e6);
        /// Messages and other events a user sends, at once.
        message_burst: u32 = 100, check between(1, 1_000_000);
        /// Rooms a user joins, creates or knocks at, per second.
        join_per_second: f64 = 1.0, check positive_up_to(1e6);
        /// Rooms a user joins, creates or knocks at, at once.
        join_burst: u32 = 50, check between(1, 1_000_000);
        /// Invitations a user sends, per second.
        invite_per_second: f64 = 1.0, check positive_up_to(1e6);
        /// Invitations a user sends, at once.
        invite_burst: u32 = 100, check between(1, 1_000_000);
        /// Uploads of a user, per second.
        upload_per_second: f64 = 2.0, check positive_up_to(1e6);
        /// Uploads of a user, at once.
        upload_burst: u32 = 100, check between(1, 1_000_000);
        /// Notices that an address has become a user's (`3pid/onbind`), per second, for an address they come from and for a user.
        /// Each may have this server ask twenty others.
        binding_per_second: f64 = 0.1, check positive_up_to(1e6);
        /// Notices that an address has become a user's, at once.
        binding_burst: u32 = 10, check between(1, 1_000_000);
    }

    /// Files that users send.
    media: Media {
        /// Largest upload, bytes. Told to clients.
        max_upload_bytes: u64 = 100 << 20, check between(1 << 10, 16 << 30);
        /// Whether anyone may download without an account through the deprecated `/_matrix/media/v3`. Some
        /// old clients need it.
        unauthenticated_downloads: bool = false;
        /// Whether thumbnails are made in any size a client asks for, or in the specification's sizes only.
        dynamic_thumbnails: bool = false;
        /// Largest image a thumbnail is made of, pixels. Each takes 4 bytes of memory meanwhile.
        max_image_pixels: u64 = 32_000_000, check between(10_000, 1_000_000_000);
        /// How long an upload may be outstanding after its id was made (`/create`), milliseconds.
        pending_upload_lifetime_ms: u64 = 86_400_000, check between(1_000, 2_592_000_000);
        /// Most outstanding uploads of one user.
        max_pending_uploads: usize = 10, check between(1, 10_000);
    }

    /// What this server does with other Matrix servers.
    federation: Federation {
        /// Whether it speaks with other servers at all.
        enabled: bool = true;
        /// Where other servers find this one, a host with an optional port. Told in `/.well-known/matrix/server`,
        /// which answers 404 while this is not set.
        well_known_server: Option<ServerName> = None, example "\"matrix.example.org:443\"";
        /// Servers this one speaks with; `*` stands for any characters, `?` for one. Empty: all.
        allowed_servers: Vec<ServerPattern> = Vec::new(), example "[\"*.example.org\"]";
        /// Servers this one does not speak with, also where `allowed_servers` has them.
        denied_servers: Vec<ServerPattern> = Vec::new(), example "[\"evil.example.com\"]";
        /// Servers that are asked for the keys of a server that cannot be asked itself. They are believed.
        trusted_key_servers: Vec<ServerName> = Vec::new(), example "[\"matrix.org\"]";
        /// Public signing keys whose private halves are known to others than their servers, base64: nothing they
        /// signed is believed. The key of the specification's examples never is.
        refused_keys: Vec<PublicKey> = Vec::new(), example "[\"XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI\"]";
        /// Certificate authorities that are trusted beside those of the operating system, PEM. Read again on
        /// SIGHUP.
        certificate_authorities_file: Option<PathBuf> = None, example "\"/etc/postern/tls/authorities.pem\"";
        /// A certificate chain this server shows to other servers that ask for one, PEM. Read again on SIGHUP.
        client_certificate_file: Option<PathBuf> = None, example "\"/etc/postern/tls/client.pem\"";
        /// The private key of that certificate, PEM. Read again on SIGHUP.
        client_key_file: Option<PathBuf> = None, example "\"/etc/postern/tls/client-key.pem\"";
        /// Networks that may be connected to though they are private, loopback or otherwise special. Without
        /// them other servers' names that lead there lead nowhere.
        allow_addresses: Vec<IpNet> = Vec::new(), example "[\"10.20.0.0/16\"]";
        /// How long connecting to another server may take, with TLS, milliseconds.
        connect_timeout_ms: u64 = 10_000, check between(100, 300_000);
        /// How long an answer of another server is waited for, milliseconds. What takes long by nature, as
        /// joining a large room, has longer.
        request_timeout_ms: u64 = 30_000, check between(1_000, 600_000);
        /// How long a server that could not be reached is left alone at first, milliseconds; then twice as
        /// long each time. When it calls by itself it is tried again at once.
        backoff_min_ms: u64 = 5_000, check between(10, 86_400_000);
        /// How long a server that cannot be reached is left alone at most, milliseconds.
        backoff_max_ms: u64 = 3_600_000, check between(10, 604_800_000);
    }

    /// How users' devices are notified: by the push gateways that their apps name.
    push: Push {
        /// Whether push gateways are told anything.
        enabled: bool = true;
        /// What they are told of an event: all that the specification has (`full`), unless the app wants less, or nothing but the
        /// ids of event and room (`event_id_only`). Of labelled rooms the border may let less through.
        content: PushContent = PushContent::Full;
        /// Hosts of push gateways that may be used; `*` stands for any characters, `?` for one. Empty: all.
        allowed_gateways: Vec<ServerPattern> = Vec::new(), example "[\"push.example.org\"]";
        /// Networks in which push gateways may be though they are private, loopback or otherwise special.
        /// Users say where their gateway is: name no more than is needed.
        allow_addresses: Vec<IpNet> = Vec::new(), example "[\"10.20.0.5/32\"]";
        /// Most pushers of one user.
        max_pushers_per_user: usize = 50, check between(1, 1_000);
        /// How long an answer of a push gateway is waited for, milliseconds.
        request_timeout_ms: u64 = 30_000, check between(100, 600_000);
        /// How long a gateway that could not be reached is left alone at first, milliseconds; then twice as long each time.
        retry_min_ms: u64 = 1_000, check between(10, 86_400_000);
        /// How long it is left alone at most, milliseconds.
        retry_max_ms: u64 = 3_600_000, check between(10, 86_400_000);
        /// After this time a notification that could not be delivered is dropped, milliseconds.
        give_up_after_ms: u64 = 86_400_000, check between(1_000, 2_592_000_000);
    }

    /// Rooms.
    rooms: Rooms {
        /// Version of new rooms whose creator does not ask for one.
        default_version: RoomVersion = RoomVersion::DEFAULT;
        /// Who may make rooms.
        creators: Who = Who::Anyone;
        /// Who may put rooms in the public directory.
        directory_publishers: Who = Who::Anyone;
        /// Which new rooms are encrypted though their creator did not ask for it: none (`off`), those only invited people can
        /// join (`private`), or `all`.
        encrypt_by_default: EncryptByDefault = EncryptByDefault::Off;
    }

    /// What users see of each other.
    users: Users {
        /// Whether users see who is online.
        presence: bool = true;
        /// Whether the user directory finds all users, or only those one shares a room with or who are in public rooms.
        directory_finds_all: bool = false;
        /// Who may change their display name and avatar.
        profile_changes: Who = Who::Anyone;
        /// Whether other servers are told the names users gave their devices.
        device_names_over_federation: bool = false;
    }

    /// Application services (bridges, bots).
    appservices: AppServices {
        /// Registration files, YAML.
        registration_files: Vec<PathBuf> = Vec::new();
        /// A directory all of whose `*.yaml` files are registrations.
        registration_directory: Option<PathBuf> = None, example "\"/etc/postern/appservices\"";
    }

    /// What the server tells about its work, on standard error.
    log: Log {
        /// How much is told.
        level: LogFilter = LogFilter::info();
        /// For people, or one JSON object a line.
        format: LogFormat = LogFormat::Human;
    }
}

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// In the long run, per second.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
}

impl RateLimits {
    /// Attempts to log in.
    #[must_use]
    pub const fn login(&self) -> Rate {
        Rate { per_second: self.login_per_second, burst: self.login_burst }
    }

    /// Registrations.
    #[must_use]
    pub const fn registration(&self) -> Rate {
        Rate { per_second: self.registration_per_second, burst: self.registration_burst }
    }

    /// Events sent.
    #[must_use]
    pub const fn message(&self) -> Rate {
        Rate { per_second: self.message_per_second, burst: self.message_burst }
    }

    /// Joins, knocks and new rooms.
    #[must_use]
    pub const fn join(&self) -> Rate {
        Rate { per_second: self.join_per_second, burst: self.join_burst }
    }

    /// Invitations.
    #[must_use]
    pub const fn invite(&self) -> Rate {
        Rate { per_second: self.invite_per_second, burst: self.invite_burst }
    }

    /// Uploads.
    #[must_use]
    pub const fn upload(&self) -> Rate {
        Rate { per_second: self.upload_per_second, burst: self.upload_burst }
    }

    /// Notices that an address has become a user's.
    #[must_use]
    pub const fn binding(&self) -> Rate {
        Rate { per_second: self.binding_per_second, burst: self.binding_burst }
    }
}
