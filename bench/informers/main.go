// A cache of pods and nodes as controller-runtime keeps it by default, to compare its memory with the operator's.
package main

import (
	"fmt"
	"log"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func main() {
	ctx := ctrl.SetupSignalHandler()
	informers, err := cache.New(ctrl.GetConfigOrDie(), cache.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, kind := range []client.Object{&corev1.Pod{}, &corev1.Node{}} {
		if _, err := informers.GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			log.Fatal(err)
		}
	}
	go func() {
		informers.WaitForCacheSync(ctx)
		fmt.Println("synced")
	}()
	log.Fatal(informers.Start(ctx))
}
