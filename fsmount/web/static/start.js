location.replace("./");
