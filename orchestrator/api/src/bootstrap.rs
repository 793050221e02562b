//! The objects that every cluster has before anybody asks: four namespaces, and the Service and EndpointSlice through which
//! pods reach the API. Made through the pipeline like everything else; what is there already stays.

use std::net::IpAddr;

use podium_types::kind::resources;
use podium_types::{ObjectKey, namespace};
use serde_json::{Value, json};

use crate::auth::User;
use crate::pipeline::{Pipeline, Target, WriteOptions};
use crate::status::Status;

const SERVICE: &str = "kubernetes";

/// Makes what is missing, and makes the EndpointSlice name exactly the given servers (its former ones are forgotten).
///
/// Call it when this member begins to lead, and when the addresses change. Doing it again changes nothing.
///
/// # Errors
/// Of the store; then call it again.
pub async fn ensure(pipeline: &Pipeline, servers: &[IpAddr], port: u16) -> Result<(), Status> {
    for name in namespace::ALL {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(pipeline, &ObjectKey::of_namespace(name), object).await?;
    }
    let key = ObjectKey::new(resources::SERVICES, namespace::DEFAULT, SERVICE);
    create(pipeline, &key, service(pipeline, port)).await?;
    let key = ObjectKey::new(resources::ENDPOINT_SLICES, namespace::DEFAULT, SERVICE);
    let slice = endpoint_slice(servers, port);
    if !create(pipeline, &key, slice.clone()).await? {
        let target = target(&key)?;
        let options = WriteOptions::default();
        pipeline.update(&user(), &target, slice.into(), &options).await?;
    }
    Ok(())
}

fn user() -> User {
    User::system("bootstrap")
}

fn target(key: &ObjectKey) -> Result<Target<'_>, Status> {
    Target::object(key).ok_or_else(Status::no_such_resource)
}

/// Whether it was made now.
async fn create(pipeline: &Pipeline, key: &ObjectKey, object: Value) -> Result<bool, Status> {
    let collection = Target { name: "", ..target(key)? };
    match pipeline.create(&user(), &collection, object.into(), &WriteOptions::default()).await {
        Ok(_) => Ok(true),
        Err(status) if status.reason == "AlreadyExists" => Ok(false),
        Err(status) => Err(status),
    }
}

fn labels() -> Value {
    json!({"component": "apiserver", "provider": "kubernetes"})
}

fn service(pipeline: &Pipeline, port: u16) -> Value {
    let address = pipeline.config().service_cidr.first();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": "default", "labels": labels()},
        "spec": {
            "type": "ClusterIP", "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    })
}

fn endpoint_slice(servers: &[IpAddr], port: u16) -> Value {
    let mut labels = labels();
    labels["kubernetes.io/service-name"] = json!(SERVICE);
    let endpoint = |server: &IpAddr| json!({"addresses": [server], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SERVICE, "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "endpoints": servers.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}
