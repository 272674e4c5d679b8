export JAVA_HOME=/opt/java
PATH=/opt/java/bin:$PATH
