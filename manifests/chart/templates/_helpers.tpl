{{- define "rescheduler.selector" -}}
app.kubernetes.io/name: rescheduler
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rescheduler.labels" -}}
{{ include "rescheduler.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Who acts for the operator: itself, and the hook before an uninstall. */}}
{{- define "rescheduler.identities" -}}
["system:serviceaccount:{{ .Release.Namespace }}:rescheduler", "system:serviceaccount:{{ .Release.Namespace }}:rescheduler-cleanup"]
{{- end }}

{{- /* Namespaces that no pool ever has. */}}
{{- define "rescheduler.neverMapped" -}}
{{ list "kube-system" .Release.Namespace | uniq | toJson }}
{{- end }}

{{- /* Namespaces whose pods may tolerate everything. */}}
{{- define "rescheduler.mayTolerate" -}}
{{ concat (list "kube-system" .Release.Namespace) .Values.pools.exemptNamespaces | uniq | toJson }}
{{- end }}

{{- /*
Conditions under which a pod is any of our business. An ownerReference can be written by anybody: only who may act for
DaemonSets in the whole cluster, as their controller may, is believed. No kubelet starts a mirror pod that it did not make.
*/}}
{{- define "rescheduler.podConditions" -}}
- name: not-of-a-daemonset
  expression: >-
    !object.metadata.?ownerReferences.orValue([]).exists(o, o.kind == "DaemonSet" && o.?controller.orValue(false) &&
    authorizer.group(o.apiVersion.contains("/") ? o.apiVersion.split("/")[0] : "").resource("daemonsets").subresource("status").check("update").allowed())
- name: not-a-mirror-pod
  expression: >-
    !("kubernetes.io/config.mirror" in object.metadata.?annotations.orValue({}))
{{- end }}

{{- /* The pool of the pod's namespace; empty where it is in none. */}}
{{- define "rescheduler.poolVariable" -}}
- name: pool
  expression: >-
    namespaceObject.metadata.?labels[?"rescheduler.dev/pool"].orValue("")
{{- end }}

{{- define "rescheduler.notCritical" -}}
- name: not-critical
  expression: >-
    !(object.spec.?priorityClassName.orValue("") in ["system-node-critical", "system-cluster-critical"])
{{- end }}
