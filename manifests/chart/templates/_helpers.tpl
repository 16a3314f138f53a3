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

{{- /* The identities of the operator: its ServiceAccount, and that of the hook before an uninstall. */}}
{{- define "rescheduler.identities" -}}
["system:serviceaccount:{{ .Release.Namespace }}:rescheduler", "system:serviceaccount:{{ .Release.Namespace }}:rescheduler-cleanup"]
{{- end }}

{{- /* Namespaces that are never in a pool. */}}
{{- define "rescheduler.neverMapped" -}}
{{ list "kube-system" .Release.Namespace | uniq | toJson }}
{{- end }}

{{- /* Namespaces whose pods may tolerate every taint. */}}
{{- define "rescheduler.mayTolerate" -}}
{{ concat (list "kube-system" .Release.Namespace) .Values.pools.exemptNamespaces | uniq | toJson }}
{{- end }}

{{- /*
Match conditions for all pods but DaemonSet pods and mirror pods. Anybody can write an ownerReference to a DaemonSet. It
counts only if the user may update the status of DaemonSets in the whole cluster, as their controller may. A mirror pod
needs no such check: a kubelet starts only the mirror pods that it created.
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

{{- /* The pool of the pod's namespace; empty if the namespace is in no pool. */}}
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
