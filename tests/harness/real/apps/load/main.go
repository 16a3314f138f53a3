// load: so many requests at a steady rate, a new connection each, none repeated, to the ready endpoints of a Service
// as its EndpointSlices tell them: what an ingress controller does. With `-lag` it hears of changes that much later.
// With `-target` all requests go to one address, such as the cluster IP of the Service. It ends with SIGTERM.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"
)

type endpointSlice struct {
	Metadata  struct{ Name string }
	Ports     []struct{ Port int }
	Endpoints []struct {
		Addresses  []string
		Conditions struct{ Ready *bool }
	}
}

// view is what the client knows of the Service's endpoints.
type view struct {
	mutex  sync.Mutex
	slices map[string]endpointSlice
}

func (v *view) set(kind string, slice endpointSlice) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if kind == "DELETED" {
		delete(v.slices, slice.Metadata.Name)
	} else {
		v.slices[slice.Metadata.Name] = slice
	}
}

// ready addresses, in a steady order: requests go to them in turn.
func (v *view) ready() []string {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	var found []string
	for _, slice := range v.slices {
		for _, endpoint := range slice.Endpoints {
			if len(slice.Ports) > 0 && (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) {
				for _, address := range endpoint.Addresses {
					found = append(found, fmt.Sprintf("%s:%d", address, slice.Ports[0].Port))
				}
			}
		}
	}
	sort.Strings(found)
	return found
}

// follow the Service's slices for ever; a watch that ends spoils the measurement.
func (v *view) follow(client *http.Client, address string, lag time.Duration) {
	answer, err := client.Get(address)
	if err != nil {
		log.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		log.Fatal("watch: ", answer.Status)
	}
	events := json.NewDecoder(answer.Body)
	for {
		var event struct {
			Type   string
			Object endpointSlice
		}
		if err := events.Decode(&event); err != nil {
			log.Fatal("watch: ", err)
		}
		time.AfterFunc(lag, func() { v.set(event.Type, event.Object) })
	}
}

func apiClient(pki string) *http.Client {
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "admin.crt"), filepath.Join(pki, "admin.key"))
	if err != nil {
		log.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

// ask once; what went wrong, or nothing.
func ask(client *http.Client, target string) string {
	answer, err := client.Get("http://" + target + "/")
	if err == nil {
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return answer.Status
		}
		_, err = io.Copy(io.Discard, answer.Body)
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "unreachable"
	case os.IsTimeout(err):
		return "timeout"
	}
	return err.Error()
}

// result of one request: when it was begun, how long it took, who was asked, what went wrong.
type result struct {
	At     float64 `json:"at"`
	Ms     float64 `json:"ms"`
	Target string  `json:"target"`
	Error  string  `json:"error"`
}

// endpoints that are ready, as the Service's slices tell them from now on; waits for the first.
func endpoints(server, pki, namespace, service string, lag time.Duration) func() []string {
	known := &view{slices: map[string]endpointSlice{}}
	selector := url.QueryEscape("kubernetes.io/service-name=" + service)
	path := fmt.Sprintf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices", namespace)
	go known.follow(apiClient(pki), server+path+"?watch=1&labelSelector="+selector, lag)
	for begun := time.Now(); len(known.ready()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > lag+10*time.Second {
			log.Fatal("no endpoint to begin with")
		}
	}
	return known.ready
}

func main() {
	server := flag.String("server", "", "the API server")
	pki := flag.String("pki", "", "folder of the administrator's key")
	namespace := flag.String("namespace", "", "of the Service")
	service := flag.String("service", "", "its name")
	rate := flag.Int("rate", 50, "requests a second")
	count := flag.Int("count", 100000, "requests at most")
	lag := flag.Duration("lag", 0, "changes of endpoints are heard of so much later")
	target := flag.String("target", "", "address for all requests, instead of the endpoints")
	flag.Parse()

	ready := func() []string { return []string{*target} }
	if *target == "" {
		ready = endpoints(*server, *pki, *namespace, *service, *lag)
	}

	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext,
	}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	results := make([]result, *count)
	var all sync.WaitGroup
	t0 := time.Now()
requests:
	for i := range results {
		select {
		case <-ended:
			results = results[:i]
			break requests
		case <-time.After(time.Until(t0.Add(time.Duration(i) * time.Second / time.Duration(*rate)))):
		}
		all.Go(func() {
			begun := time.Now()
			one := result{At: float64(begun.UnixMicro()) / 1e6, Error: "no endpoint"}
			if addresses := ready(); len(addresses) > 0 {
				one.Target = addresses[i%len(addresses)]
				one.Error = ask(client, one.Target)
			}
			one.Ms = float64(time.Since(begun).Microseconds()) / 1000
			results[i] = one
		})
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
