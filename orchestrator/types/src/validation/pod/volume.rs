//! Volumes of a pod, and where containers mount them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::report::{Path, Report, items, text};
use super::environment;
use crate::names;
use crate::quantity;

/// The sources of volumes that nodes can make.
const SOURCES: [&str; 6] =
    ["configMap", "downwardAPI", "emptyDir", "hostPath", "projected", "secret"];
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The names of all volumes, whether valid or not, for containers to refer to.
pub(super) fn volumes<'a>(
    report: &mut Report,
    list: &Path<'_>,
    spec: &'a Value,
) -> BTreeSet<&'a str> {
    let mut named = BTreeSet::new();
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        let path = list.index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            report.required(&path.child("name"), "");
        } else {
            report.reasons(&path.child("name"), name, names::dns_label(name));
            if !named.insert(name) {
                report.duplicate(&path.child("name"), name);
            }
        }
        let sources =
            volume.as_object().into_iter().flatten().filter(|(field, _)| *field != "name");
        let mut count = 0;
        for (field, source) in sources {
            count += 1;
            let path = path.child(field);
            if count > 1 {
                report.forbidden(&path, "may not specify more than 1 volume type");
            } else if SOURCES.contains(&field.as_str()) {
                one(report, &path, field, source);
            } else {
                report.not_yet(&path);
            }
        }
        if count == 0 {
            report.required(&path, "must specify a volume type");
        }
    }
    named
}

fn one(report: &mut Report, path: &Path<'_>, kind: &str, source: &Value) {
    match kind {
        "emptyDir" => {
            report.one_of(&path.child("medium"), &source["medium"], &["", "Memory"]);
            let limit = quantity::of(&source["sizeLimit"]);
            if let Some(limit) = limit.filter(|limit| limit.is_negative()) {
                report.invalid(
                    &path.child("sizeLimit"),
                    limit.to_string(),
                    "must be greater than or equal to 0",
                );
            }
        }
        "hostPath" => {
            let folder = text(source, "path");
            if folder.is_empty() {
                report.required(&path.child("path"), "");
            } else if folder.split('/').any(|part| part == "..") {
                report.invalid(&path.child("path"), folder, "must not contain '..'");
            }
            report.one_of(&path.child("type"), &source["type"], &HOST_PATH_TYPES);
        }
        "configMap" => files(report, path, "name", source),
        "secret" => files(report, path, "secretName", source),
        "downwardAPI" => {
            mode(report, &path.child("defaultMode"), &source["defaultMode"]);
            downward(report, path, source);
        }
        _ => projected(report, path, source),
    }
}

/// Files made of the entries of a ConfigMap or Secret.
fn files(report: &mut Report, path: &Path<'_>, name: &str, source: &Value) {
    if text(source, name).is_empty() {
        report.required(&path.child(name), "");
    }
    mode(report, &path.child("defaultMode"), &source["defaultMode"]);
    for (index, item) in items(source, "items").iter().enumerate() {
        let list = path.child("items");
        let path = list.index(index);
        if text(item, "key").is_empty() {
            report.required(&path.child("key"), "");
        }
        file_path(report, &path.child("path"), text(item, "path"));
        mode(report, &path.child("mode"), &item["mode"]);
    }
}

fn downward(report: &mut Report, path: &Path<'_>, source: &Value) {
    for (index, item) in items(source, "items").iter().enumerate() {
        let list = path.child("items");
        let path = list.index(index);
        file_path(report, &path.child("path"), text(item, "path"));
        mode(report, &path.child("mode"), &item["mode"]);
        let (field, resource) = (&item["fieldRef"], &item["resourceFieldRef"]);
        if !field.is_null() && !resource.is_null() {
            report.invalid(
                &path,
                item.clone(),
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        } else if !field.is_null() {
            // Whole maps of labels and annotations become files, too.
            if !["metadata.labels", "metadata.annotations"].contains(&text(field, "fieldPath")) {
                environment::field_reference(
                    report,
                    &path.child("fieldRef"),
                    field,
                    &["annotations", "labels"],
                );
            }
        } else if !resource.is_null() {
            if text(resource, "containerName").is_empty() {
                report.required(&path.child("resourceFieldRef").child("containerName"), "");
            }
            environment::resource_reference(report, &path.child("resourceFieldRef"), resource);
        } else {
            report.required(
                &path.child("fieldRef"),
                "one of fieldRef and resourceFieldRef is required",
            );
        }
    }
}

fn projected(report: &mut Report, path: &Path<'_>, source: &Value) {
    mode(report, &path.child("defaultMode"), &source["defaultMode"]);
    for (index, part) in items(source, "sources").iter().enumerate() {
        let list = path.child("sources");
        let path = list.index(index);
        let mut count = 0;
        for (kind, source) in part.as_object().into_iter().flatten() {
            count += 1;
            let path = path.child(kind);
            match kind.as_str() {
                _ if count > 1 => {
                    report.forbidden(&path, "may not specify more than 1 volume type");
                }
                "configMap" | "secret" => files(report, &path, "name", source),
                "downwardAPI" => downward(report, &path, source),
                _ => report.not_yet(&path),
            }
        }
        if count == 0 {
            report.required(&path, "must specify one of configMap, secret and downwardAPI");
        }
    }
}

fn mode(report: &mut Report, path: &Path<'_>, mode: &Value) {
    if mode.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        report.invalid(path, mode.clone(), MODE);
    }
}

/// A path within a volume.
fn file_path(report: &mut Report, path: &Path<'_>, file: &str) {
    if file.is_empty() {
        report.required(path, "");
        return;
    }
    stays_below(report, path, file);
    if file.starts_with("..") && !file.starts_with("../") && file != ".." {
        report.invalid(path, file, "must not start with '..'");
    }
}

fn stays_below(report: &mut Report, path: &Path<'_>, file: &str) {
    if file.starts_with('/') {
        report.invalid(path, file, "must be a relative path");
    }
    if file.split('/').any(|part| part == "..") {
        report.invalid(path, file, "must not contain '..'");
    }
}

pub(super) fn mounts(
    report: &mut Report,
    list: &Path<'_>,
    container: &Value,
    volumes: &BTreeSet<&str>,
) {
    let mut taken: Vec<&str> = Vec::new();
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let name = text(mount, "name");
        if name.is_empty() {
            report.required(&path.child("name"), "");
        } else if !volumes.contains(name) {
            report.not_found(&path.child("name"), name);
        }
        let place = text(mount, "mountPath");
        if place.is_empty() {
            report.required(&path.child("mountPath"), "");
        } else if taken.contains(&place) {
            report.invalid(&path.child("mountPath"), place, "must be unique");
        }
        taken.push(place);
        for field in ["subPath", "subPathExpr"] {
            stays_below(report, &path.child(field), text(mount, field));
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            report.invalid(
                &path.child("subPathExpr"),
                text(mount, "subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        let ways = ["Bidirectional", "HostToContainer", "None"];
        report.one_of(&path.child("mountPropagation"), &mount["mountPropagation"], &ways);
    }
}
