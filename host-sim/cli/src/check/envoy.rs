//! Finds the wasm filters of an Envoy file, their configurations and what stands around them. It must not judge.

use serde_json::{Map, Value as Json, json};

use super::tree::{Node, Value};
use super::written::Written;

const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const CONNECTION_MANAGER: &str = "http_connection_manager.v3.HttpConnectionManager";
/// The version of the facts' form.
const VERSION: u32 = 1;

/// One filter of the file.
pub(crate) struct Filter {
    pub(crate) name: String,
    /// Where the file says the plugin is.
    pub(crate) wasm: Option<String>,
    /// `None` if the file gives it none.
    pub(crate) config: Option<Written>,
    /// Variables that the file itself gives the VM.
    pub(crate) env: Vec<(String, String)>,
    /// What docs/checking.md lists.
    pub(crate) facts: Json,
}

struct Found<'a> {
    at: String,
    /// The message `Wasm`.
    settings: &'a Node,
    around: Around<'a>,
}

/// What a filter stands in, each with its place.
#[derive(Clone, Default)]
struct Around<'a> {
    listener: Option<(String, &'a Node)>,
    connection_manager: Option<(String, &'a Node)>,
}

/// Every wasm filter of a file, in its order.
pub(crate) fn filters(root: &Node, file: &str) -> Vec<Filter> {
    if let Some(plugin) = wasm_plugin(root) {
        return vec![plugin];
    }
    let mut found = Vec::new();
    walk(root, &mut String::new(), Around::default(), &mut found);
    let (clusters, complete) = clusters(root);
    let filter = |found: Found<'_>| filter(&found, &clusters, complete, file);
    found.into_iter().map(filter).collect()
}

/// Istio's resource. It says nothing of what stands around the filter, so there are no facts.
fn wasm_plugin(root: &Node) -> Option<Filter> {
    let text = |path: &[&str]| root.at(path).and_then(Node::text);
    if text(&["kind"]) != Some("WasmPlugin") {
        return None;
    }
    Some(Filter {
        name: text(&["metadata", "name"]).unwrap_or_default().to_owned(),
        wasm: None,
        config: root.at(&["spec", "pluginConfig"]).map(Written::value),
        env: Vec::new(),
        facts: Json::Null,
    })
}

/// Whether a file is an Envoy configuration at all, if perhaps one without a wasm filter.
pub(crate) fn is_envoy(root: &Node) -> bool {
    ["static_resources", "dynamic_resources", "resources"]
        .iter()
        .any(|name| root.get(name).is_some())
}

/// The value that a pointer of the facts means.
pub(crate) fn pointed<'a>(root: &'a Node, pointer: &str) -> Option<&'a Node> {
    pointer.split('/').skip(1).try_fold(root, |node, part| match &node.value {
        Value::List(items) => items.get(part.parse::<usize>().ok()?),
        Value::Table(fields) => {
            let name = part.replace("~1", "/").replace("~0", "~");
            fields.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
        }
        _ => None,
    })
}

fn is_a(node: &Node, message: &str) -> bool {
    let named =
        |field: &str| node.get(field).and_then(Node::text).is_some_and(|t| t.ends_with(message));
    named("@type") || named("type_url")
}

fn walk<'a>(node: &'a Node, at: &mut String, mut around: Around<'a>, found: &mut Vec<Found<'a>>) {
    if is_a(node, WASM) {
        // In a TypedStruct the message is its `value`.
        let settings = node.get("value").unwrap_or(node);
        found.push(Found { at: at.clone(), settings, around });
        return;
    }
    if is_a(node, CONNECTION_MANAGER) {
        around.connection_manager = Some((at.clone(), node));
    }
    if node.get("filter_chains").is_some() || node.get("default_filter_chain").is_some() {
        around.listener = Some((at.clone(), node));
    }
    let len = at.len();
    for (key, value) in node.fields() {
        at.push('/');
        at.push_str(&key.name.replace('~', "~0").replace('/', "~1"));
        walk(value, at, around.clone(), found);
        at.truncate(len);
    }
    for (index, item) in node.items().iter().enumerate() {
        at.push_str(&format!("/{index}"));
        walk(item, at, around.clone(), found);
        at.truncate(len);
    }
}

fn filter(found: &Found<'_>, clusters: &Json, complete: bool, file: &str) -> Filter {
    let config = found.settings.get("config");
    let field = |name: &str| config.and_then(|config| config.get(name));
    let text = |name: &str| field(name).and_then(Node::text).map(str::to_owned);
    let vm = field("vm_config");
    let configuration = field("configuration");
    let is_text = configuration.is_some_and(|node| is_a(node, "google.protobuf.StringValue"));
    let env = environment(vm);
    let mut names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
    let keys = vm.and_then(|vm| vm.at(&["environment_variables", "host_env_keys"]));
    names.extend(keys.into_iter().flat_map(Node::items).filter_map(Node::text));
    let fail_open = field("fail_open").and_then(Node::truth) == Some(true);
    let own = object([
        ("at", Some(json!(found.at))),
        ("name", text("name").map(Json::from)),
        ("root_id", text("root_id").map(Json::from)),
        (
            "failure_policy",
            text("failure_policy").or(fail_open.then(|| "fail_open".to_owned())).map(Json::from),
        ),
        (
            "allow_on_headers_stop_iteration",
            field("allow_on_headers_stop_iteration").and_then(truth),
        ),
        ("env", Some(json!(names))),
        (
            "configuration_type",
            configuration.map(|_| json!(if is_text { "StringValue" } else { "Struct" })),
        ),
    ]);
    let facts = object([
        ("version", Some(json!(VERSION))),
        ("filter", Some(own)),
        ("listener", found.around.listener.as_ref().map(listener)),
        ("connection_manager", found.around.connection_manager.as_ref().map(connection_manager)),
        ("routes", found.around.connection_manager.as_ref().map(routes)),
        ("clusters", Some(clusters.clone())),
        ("clusters_complete", Some(json!(complete))),
    ]);
    Filter {
        name: text("name").unwrap_or_else(|| found.at.clone()),
        wasm: vm.and_then(|vm| vm.at(&["code", "local", "filename"])?.text()).map(str::to_owned),
        config: configuration.map(|node| written(node, is_text, file)),
        env,
        facts,
    }
}

fn written(configuration: &Node, is_text: bool, file: &str) -> Written {
    let value = configuration.get("value");
    match value {
        Some(Node { value: Value::Text(text), span }) if is_text => Written::text(text, span, file),
        Some(value) => Written::value(value),
        None => Written::value(configuration),
    }
}

fn environment(vm: Option<&Node>) -> Vec<(String, String)> {
    let values = vm.and_then(|vm| vm.at(&["environment_variables", "key_values"]));
    let text = |node: &Node| node.text().unwrap_or_default().to_owned();
    values
        .into_iter()
        .flat_map(Node::fields)
        .map(|(name, value)| (name.name.clone(), text(value)))
        .collect()
}

fn listener((at, node): &(String, &Node)) -> Json {
    let limit = node.get("per_connection_buffer_limit_bytes").map(|node| match &node.value {
        Value::Number(number) => number.parse::<u64>().ok(),
        _ => None,
    });
    object([
        ("at", Some(json!(at))),
        ("name", node.get("name").and_then(Node::text).map(Json::from)),
        ("per_connection_buffer_limit_bytes", limit.flatten().map(Json::from)),
    ])
}

fn connection_manager((at, node): &(String, &Node)) -> Json {
    object([
        ("at", Some(json!(at))),
        ("stream_idle_timeout_ms", node.get("stream_idle_timeout").and_then(milliseconds)),
        ("request_timeout_ms", node.get("request_timeout").and_then(milliseconds)),
        ("use_remote_address", node.get("use_remote_address").and_then(truth)),
        ("rewrites_local_replies", node.get("local_reply_config").and_then(rewrites)),
    ])
}

/// `true` if local replies do not go out as they are.
fn rewrites(node: &Node) -> Option<Json> {
    let is_written = ["mappers", "body_format"].iter().any(|field| node.get(field).is_some());
    is_written.then_some(Json::Bool(true))
}

fn routes((at, node): &(String, &Node)) -> Json {
    let mut routes = Vec::new();
    let hosts = node.entry("route_config").and_then(|(outer, config)| {
        let (inner, hosts) = config.entry("virtual_hosts")?;
        Some((format!("{at}/{outer}/{inner}"), hosts.items()))
    });
    let (at, hosts) = hosts.unwrap_or_default();
    for (h, host) in hosts.iter().enumerate() {
        let own = host.get("routes").map(Node::items).unwrap_or_default();
        for (r, route) in own.iter().enumerate() {
            let Some(action) = route.get("route") else { continue };
            let text = |node: &Node, field: &str| node.get(field)?.text().map(Json::from);
            routes.push(object([
                ("at", Some(json!(format!("{at}/{h}/routes/{r}/route")))),
                ("name", text(route, "name")),
                ("cluster", text(action, "cluster")),
                ("timeout_ms", action.get("timeout").and_then(milliseconds)),
                ("retry_on", retry_on(action).or_else(|| retry_on(host))),
                ("hedges", hedges(action).or_else(|| hedges(host))),
            ]));
        }
    }
    routes.into()
}

fn retry_on(node: &Node) -> Option<Json> {
    node.get("retry_policy")
        .map(|policy| policy.get("retry_on").and_then(Node::text).unwrap_or("").into())
}

/// Whether a try that takes long is not waited for before the next one.
fn hedges(node: &Node) -> Option<Json> {
    let field = node.get("hedge_policy").map(|policy| policy.get("hedge_on_per_try_timeout"))?;
    Some(field.and_then(Node::truth).unwrap_or(false).into())
}

/// The clusters of the file, and whether there can be no others.
fn clusters(root: &Node) -> (Json, bool) {
    let mut found = Vec::new();
    let mut add = |at: String, node: &Node| {
        found.push(object([
            ("at", Some(json!(at))),
            ("name", node.get("name").and_then(Node::text).map(Json::from)),
            ("connect_timeout_ms", node.get("connect_timeout").and_then(milliseconds)),
        ]));
    };
    let fixed = root.at(&["static_resources", "clusters"]);
    for (index, node) in fixed.map(Node::items).unwrap_or_default().iter().enumerate() {
        add(format!("/static_resources/clusters/{index}"), node);
    }
    let resources = root.get("resources").map(Node::items).unwrap_or_default();
    for (index, node) in resources.iter().enumerate() {
        if is_a(node, "envoy.config.cluster.v3.Cluster") {
            add(format!("/resources/{index}"), node);
        }
    }
    let complete = fixed.is_some() && root.at(&["dynamic_resources", "cds_config"]).is_none();
    (found.into(), complete)
}

fn truth(node: &Node) -> Option<Json> {
    node.truth().map(Json::from)
}

/// A duration as protobuf writes it: `0.030s`.
fn milliseconds(node: &Node) -> Option<Json> {
    let number: f64 = node.text()?.strip_suffix('s')?.parse().ok()?;
    let ms = (number * 1_000.0).round();
    // Durations of protobuf end long before a double loses whole milliseconds.
    (0.0..9.0e15).contains(&ms).then(|| format!("{ms:.0}").parse::<u64>().ok().map(Json::from))?
}

fn object<const N: usize>(fields: [(&str, Option<Json>); N]) -> Json {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Json::Object(fields.collect::<Map<String, Json>>())
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    const FILE: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: edge
  perConnectionBufferLimitBytes: 32768
  filter_chains:
  - filters:
    - typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stream_idle_timeout: 0.5s
        use_remote_address: false
        localReplyConfig: { body_format: { text_format: "%LOCAL_REPLY_BODY%" } }
        route_config:
          virtualHosts:
          - retry_policy: { retry_on: "5xx,reset" }
            hedgePolicy: { hedge_on_per_try_timeout: true }
            routes:
            - { name: r, match: { prefix: / }, route: { cluster: c, timeout: 0s } }
            - { match: { prefix: /y }, route: { cluster: c, retryPolicy: { retry_on: connect-failure }, hedge_policy: {} } }
            - { match: { prefix: /x }, direct_response: { status: 404 } }
        http_filters:
        - typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
            config:
              name: limits
              root_id: r
              fail_open: true
              vm_config: { environment_variables: { host_env_keys: [A], key_values: { B: b } }, code: { local: { filename: p.wasm } } }
              configuration: { "@type": type.googleapis.com/google.protobuf.Struct, value: { a: 1 } }
- { "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: c, connect_timeout: 1.25s }
"#;

    #[test]
    fn the_facts_are_what_the_file_says_and_where() {
        let root = parse(FILE).expect("YAML");
        let filters = filters(&root, FILE);
        let [filter] = filters.as_slice() else { panic!("one filter") };
        let manager = "/resources/0/filter_chains/0/filters/0/typed_config";
        let wasm = format!("{manager}/http_filters/0/typed_config");
        let route = format!("{manager}/route_config/virtualHosts/0/routes/0/route");
        assert_eq!(
            filter.facts,
            json!({
                "version": 1,
                "filter": { "at": wasm, "name": "limits", "root_id": "r", "failure_policy": "fail_open", "env": ["B", "A"], "configuration_type": "Struct" },
                "listener": { "at": "/resources/0", "name": "edge", "per_connection_buffer_limit_bytes": 32768 },
                "connection_manager": { "at": manager, "stream_idle_timeout_ms": 500, "use_remote_address": false, "rewrites_local_replies": true },
                "routes": [
                    { "at": route, "name": "r", "cluster": "c", "timeout_ms": 0, "retry_on": "5xx,reset", "hedges": true },
                    { "at": route.replace("routes/0", "routes/1"), "cluster": "c", "retry_on": "connect-failure", "hedges": false },
                ],
                "clusters": [{ "at": "/resources/1", "name": "c", "connect_timeout_ms": 1250 }],
                "clusters_complete": false,
            })
        );
        assert_eq!(filter.wasm.as_deref(), Some("p.wasm"));
        assert_eq!(filter.config.as_ref().map(|config| config.json.as_str()), Some("{\"a\": 1}"));
        for at in [manager, &wasm, &route, "/resources/1"] {
            assert!(pointed(&root, at).is_some(), "{at}");
        }
    }
}
