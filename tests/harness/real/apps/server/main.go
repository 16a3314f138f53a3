// server: an HTTP service that takes a while to start and ends as a good one does; `server pause` only waits, for
// every pod needs such a process.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	if len(os.Args) > 1 && os.Args[1] == "pause" {
		<-told
		return
	}
	startup := flag.Duration("startup", 0, "not ready before")
	work := flag.Duration("work", 0, "how long a request takes")
	flag.Parse()
	begun := time.Now()
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(begun) < *startup {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(*work)
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Addr: ":8080"}
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	<-told
	if err := server.Shutdown(context.Background()); err != nil { // ends what it is answering, takes nothing new
		log.Fatal(err)
	}
}
