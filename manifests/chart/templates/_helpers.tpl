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

{{- /* Cluster-wide names carry the namespace where it is not the usual one. */}}
{{- define "rescheduler.name" -}}
{{ if eq .Release.Namespace "rescheduler-system" }}rescheduler{{ else }}rescheduler-{{ .Release.Namespace }}{{ end }}
{{- end }}
